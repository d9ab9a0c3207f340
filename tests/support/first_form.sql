-- A catalogue as the first public form of Carillon (6be0238) makes it: `.schema` of its SQLite file, and some rows.

CREATE TABLE alembic_version (
    version_num VARCHAR(32) NOT NULL,
    CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);

CREATE TABLE api_keys (
    id VARCHAR NOT NULL,
    name VARCHAR NOT NULL,
    digest VARCHAR NOT NULL,
    scopes JSON NOT NULL,
    created_at DATETIME NOT NULL,
    expires_at DATETIME,
    last_used_at DATETIME,
    revoked_at DATETIME,
    PRIMARY KEY (id)
);

CREATE TABLE voices (
    id VARCHAR NOT NULL,
    name VARCHAR NOT NULL,
    model VARCHAR NOT NULL,
    language VARCHAR NOT NULL,
    description VARCHAR NOT NULL,
    prompt_name VARCHAR NOT NULL,
    version INTEGER NOT NULL,
    consent_number VARCHAR NOT NULL,
    created_at DATETIME NOT NULL,
    deleted_at DATETIME,
    PRIMARY KEY (id)
);

CREATE TABLE adapter_versions (
    lora_id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    voice_id VARCHAR NOT NULL,
    version INTEGER NOT NULL,
    uri VARCHAR NOT NULL,
    sha256 JSON NOT NULL,
    rank INTEGER NOT NULL,
    created_at DATETIME NOT NULL, published_at DATETIME,
    UNIQUE (voice_id, version),
    FOREIGN KEY(voice_id) REFERENCES voices (id) ON DELETE CASCADE
);

CREATE UNIQUE INDEX voices_model_name ON voices (model, name) WHERE deleted_at IS NULL;

CREATE TABLE samples (
    id VARCHAR NOT NULL,
    voice_id VARCHAR NOT NULL,
    file_name VARCHAR NOT NULL,
    size_bytes INTEGER NOT NULL,
    facts JSON NOT NULL,
    transcript VARCHAR,
    object_key VARCHAR NOT NULL,
    created_at DATETIME NOT NULL,
    PRIMARY KEY (id),
    FOREIGN KEY(voice_id) REFERENCES voices (id) ON DELETE CASCADE
);

CREATE INDEX ix_samples_voice_id ON samples (voice_id);

CREATE TABLE consents (
    id VARCHAR NOT NULL,
    voice_id VARCHAR NOT NULL,
    kind VARCHAR NOT NULL,
    number VARCHAR NOT NULL,
    statement VARCHAR,
    object_key VARCHAR,
    key_id VARCHAR,
    created_at DATETIME NOT NULL,
    PRIMARY KEY (id),
    FOREIGN KEY(voice_id) REFERENCES voices (id) ON DELETE CASCADE
);

CREATE INDEX ix_consents_voice_id ON consents (voice_id);

CREATE TABLE clone_jobs (
    id VARCHAR NOT NULL,
    voice_id VARCHAR NOT NULL,
    kind VARCHAR NOT NULL,
    state VARCHAR NOT NULL,
    config JSON NOT NULL,
    attempt INTEGER NOT NULL,
    revision INTEGER NOT NULL,
    cancel_requested BOOLEAN NOT NULL,
    progress JSON,
    report JSON,
    gate JSON,
    version INTEGER,
    error JSON,
    webhook_url VARCHAR,
    webhook_done_at DATETIME,
    created_at DATETIME NOT NULL,
    started_at DATETIME,
    finished_at DATETIME,
    lease_expires_at DATETIME,
    PRIMARY KEY (id),
    FOREIGN KEY(voice_id) REFERENCES voices (id) ON DELETE CASCADE
);

CREATE UNIQUE INDEX clone_jobs_one_active ON clone_jobs (voice_id) WHERE finished_at IS NULL;

CREATE TABLE narrations (
    id VARCHAR NOT NULL,
    state VARCHAR NOT NULL,
    voice VARCHAR NOT NULL,
    "cast" JSON NOT NULL,
    model VARCHAR NOT NULL,
    voices JSON NOT NULL,
    format VARCHAR NOT NULL,
    options JSON NOT NULL,
    source JSON NOT NULL,
    title VARCHAR NOT NULL,
    takes JSON NOT NULL,
    revision INTEGER NOT NULL,
    cancel_requested BOOLEAN NOT NULL,
    findings JSON NOT NULL,
    script_key VARCHAR,
    output JSON,
    error JSON,
    webhook_url VARCHAR,
    webhook_done_at DATETIME,
    created_at DATETIME NOT NULL,
    started_at DATETIME,
    finished_at DATETIME,
    PRIMARY KEY (id)
);

CREATE TABLE narration_steps (
    narration_id VARCHAR NOT NULL,
    number INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    setbacks INTEGER NOT NULL,
    progress JSON,
    result_key VARCHAR,
    failed BOOLEAN NOT NULL,
    finished_at DATETIME,
    released_at DATETIME NOT NULL,
    lease_expires_at DATETIME,
    PRIMARY KEY (narration_id, number),
    FOREIGN KEY(narration_id) REFERENCES narrations (id) ON DELETE CASCADE
);


INSERT INTO alembic_version VALUES ('0003');
INSERT INTO api_keys (id, name, digest, scopes, created_at)
VALUES ('0123456789ab', 'laptop', 'd1', '["speak"]', '2026-01-01 00:00:00');
INSERT INTO voices (id, name, model, language, description, prompt_name, version, consent_number, created_at)
VALUES ('abcdefghijkl', 'Mary', 'standin', 'en', 'warm', 'abcdefghijkl', 2, '12345678', '2026-01-01 00:00:00');
INSERT INTO adapter_versions (lora_id, voice_id, version, uri, sha256, rank, created_at, published_at)
VALUES (7, 'abcdefghijkl', 2, 's3://b/2/', '{"a": "0"}', 16, '2026-01-01 00:00:00', '2026-01-02 00:00:00');
INSERT INTO samples (id, voice_id, file_name, size_bytes, facts, object_key, created_at)
VALUES ('smp_1', 'abcdefghijkl', 'a.wav', 10,
    '{"container": "wav", "sample_rate_hz": 48000, "channels": 1, "duration_s": 61.5}', 'voices/abcdefghijkl/smp_1',
    '2026-01-01 00:00:00');
INSERT INTO consents (id, voice_id, kind, number, statement, created_at)
VALUES ('cons_1', 'abcdefghijkl', 'operator', '12345678', 'drawer 3', '2026-01-01 00:00:00');
INSERT INTO clone_jobs (id, voice_id, kind, state, config, attempt, revision, cancel_requested, created_at, finished_at)
VALUES ('job-1', 'abcdefghijkl', 'clone', 'completed', '{}', 1, 9, 0, '2026-01-01 00:00:00', '2026-01-02 00:00:00');
INSERT INTO narrations (id, state, voice, "cast", model, voices, format, options, source, title, takes, revision,
    cancel_requested, findings, created_at)
VALUES ('nar-1', 'queued', 'wren', '{}', 'standin', '{}', 'wav', '{}',
    '{"kind": "text", "file_name": "a.txt", "key": "k", "size_bytes": 3}', 'A book', '{}', 1, 0, '[]',
    '2026-01-01 00:00:00');
INSERT INTO narration_steps (narration_id, number, attempt, setbacks, progress, failed, released_at)
SELECT 'nar-1', number, 2, 0, '{"number": 1, "title": "One", "segments": 3}', 0, '2026-01-01 00:00:00'
FROM (SELECT 0 AS number UNION SELECT 1 UNION SELECT 12 UNION SELECT 1000000) AS steps;
