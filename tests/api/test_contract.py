"""`openapi.json` as others use it: client generators, a fuzzer that holds answers to it, and people at `/docs`."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from app.api.openapi import OPEN_PATHS
from app.main import create_app
from app.platform.settings import Settings
from app.speech.choices import Scope
from tests.api.conftest import House, OpenStudio
from tests.support.deadlines import HANG_S

pytestmark = pytest.mark.anyio

LONG = int(os.environ.get("CARILLON_TEST_FUZZ", "4"))
"""Examples of an operation, where there is time for them."""

TOOLS = Path(sys.executable).parent


@pytest.fixture(scope="module")
def contract(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return create_app(Settings(data_dir=tmp_path_factory.mktemp("contract"))).openapi()


def operations(contract: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in contract["paths"].items():
        yield from ((f"{method.upper()} {path}", operation) for method, operation in methods.items())


async def run(*command: str | Path, cwd: Path, timeout_s: float = 4 * HANG_S) -> str:
    """What a tool printed. Fails where the tool does."""
    process = await asyncio.create_subprocess_exec(
        *map(str, command), cwd=cwd, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        async with asyncio.timeout(timeout_s):
            said, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, said.decode()[-20_000:]
    return said.decode()


def imported(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def test_every_operation_asks_for_the_key_and_says_how_it_fails(contract: dict[str, Any]) -> None:
    for name, operation in operations(contract):
        path = name.partition(" ")[2]
        assert ("security" in operation) == (path not in OPEN_PATHS), name
        failures = {status for status in operation["responses"] if status[0] in "45"}
        assert {"401", "403", "500"} <= failures or path in OPEN_PATHS, name
        if "requestBody" in operation:
            assert {"400", "408", "413"} <= failures, name
        for status in failures - {"412", "416"}:
            assert "application/json" in operation["responses"][status]["content"], (name, status)


def test_every_answer_has_a_type(contract: dict[str, Any]) -> None:
    for name, operation in operations(contract):
        success = next(answer for status, answer in operation["responses"].items() if status.startswith("2"))
        for kind, content in success["content"].items():
            assert kind != "application/json" or "$ref" in content["schema"], name
            assert content["schema"], name


def test_every_json_body_has_a_name_and_forms_say_what_they_need(contract: dict[str, Any]) -> None:
    for name, operation in operations(contract):
        for kind, content in operation.get("requestBody", {}).get("content", {}).items():
            if kind == "application/json":
                assert "$ref" in content["schema"], name
            else:
                assert content["schema"]["required"], name


async def test_a_generator_makes_models_that_fit_what_is_answered(
    open_studio: OpenStudio, contract: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "openapi.json").write_text(json.dumps(contract))
    target = tmp_path / "carillon_models.py"
    options = [
        "--input-file-type",
        "openapi",
        "--output-model-type",
        "pydantic_v2.BaseModel",
        "--formatters",
        "builtin",
    ]
    await run(
        *(TOOLS / "datamodel-codegen", *options, "--input", "openapi.json", "--output", target),
        cwd=tmp_path,
    )
    models = imported(target)
    assert models.SpeechRequest(input="Hello.", voice="alloy").input == "Hello."
    async with open_studio() as studio:
        voice_id = await studio.voice()
        for path, model in {
            "/v1/models": models.ModelList,
            "/v1/audio/voices": models.SpeakingVoices,
            "/v1/fleet": models.Workers,
        }.items():
            model.model_validate_json((await studio.house.http.get(path)).content)
        for path, model in {
            "/v1/voices": models.VoiceList,
            f"/v1/voices/{voice_id}": models.VoiceDetails,
            f"/v1/voices/{voice_id}/consent": models.VoiceConsent,
            "/v1/clones": models.CloneList,
        }.items():
            model.model_validate_json((await studio.http.get(path)).content)


async def test_another_generator_makes_a_whole_client(contract: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "openapi.json").write_text(json.dumps(contract))
    said = await run(TOOLS / "clientele", "start-api", "-f", "openapi.json", "-o", "carillon_client", cwd=tmp_path)
    assert "client generated" in said
    schemas = imported(tmp_path / "carillon_client" / "schemas.py")
    assert schemas.NewVoice(name="ada").name == "ada"
    client = (tmp_path / "carillon_client" / "client.py").read_text()
    compile(client, "client.py", "exec")
    assert client.count("\ndef ") == sum(1 for _ in operations(contract))


@pytest.mark.parametrize(
    ("phases", "examples"),
    [("examples,fuzzing", 1), pytest.param("examples,coverage,fuzzing", LONG, marks=pytest.mark.slow)],
)
async def test_a_fuzzer_finds_nothing_that_is_not_as_the_contract_says(
    open_studio: OpenStudio, tmp_path: Path, phases: str, examples: int
) -> None:
    async with open_studio() as studio:
        key = await studio.house.catalog.keys.create("fuzzer", {Scope.ADMIN})
        await run(
            *(
                sys.executable,
                "-m",
                "schemathesis.cli",
                "--config-file",
                Path(__file__).with_name("schemathesis.toml"),
                "run",
                f"{studio.house.url}/openapi.json",
            ),
            *("--header", f"Authorization: Bearer {key.token}", "--max-examples", str(examples)),
            *("--phases", phases, "--generation-deterministic", "--continue-on-failure"),
            *("--request-timeout", "20", "--no-color"),
            cwd=tmp_path,
            timeout_s=600 + 120 * examples,
        )


async def test_a_wrong_method_is_told_all_the_right_ones(house: House) -> None:
    answer = await house.http.put("/v1/voices")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, POST")


async def test_a_path_in_words_is_not_told_as_one_with_an_id(house: House) -> None:
    answer = await house.http.put("/v1/narrations/preview")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    answer = await house.http.put("/v1/narrations/nar-1")
    assert (answer.status_code, answer.headers["allow"]) == (405, "DELETE, GET")


async def test_the_page_for_people_needs_nothing_from_elsewhere(house: House) -> None:
    page = await house.http.get("/docs", headers={"Authorization": ""})
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy
    assert "<script>" not in page.text and "style=" not in page.text
    addresses = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(addresses) == 4
    for address in addresses:
        assert "//" not in address
        part = await house.http.get(f"/{address}")
        assert part.status_code == 200 and part.content
    assert "openapi.json" in (await house.http.get("/docs/page.js")).text
    assert (await house.http.get("/docs/other.js")).status_code == 404
