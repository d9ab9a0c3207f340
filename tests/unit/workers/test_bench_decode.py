"""The decode bench on a tiny codec: what it counts, not how long it takes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.support.random_codecs import SNAC_24KHZ, TINY, random_codec
from workers.bench.decode import run
from workers.bench.decode_report import DecodeReport

STANDIN = Path(__file__).parents[3] / "training/standin/checkpoint/codec"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> DecodeReport:
    """One codec as a checkpoint, measured on a speech-like signal, and one as an object, on random codes."""
    directory = tmp_path_factory.mktemp("codec")
    (directory / "config.json").write_text(json.dumps(TINY))
    torch.save(random_codec(TINY).state_dict(), directory / "pytorch_model.bin")
    return run({"saved": directory, "loaded": random_codec(TINY, seed=1)}, sessions=(1, 3), repetitions=1, least_s=0)


def test_each_codec_is_measured_with_each_scheme(report: DecodeReport) -> None:
    names = [(result.codec, result.scheme) for result in report.results]
    schemes = ("window", "exact", "exact + head", "exact, no noise")
    assert names == [(codec, scheme) for codec in ("saved", "loaded") for scheme in schemes]
    assert all(set(result.cost_ms_per_audio_s) == {1, 3} for result in report.results)
    assert report.cost_ratio(report.results[0], 3) == 1.0


def test_the_window_starts_late_loses_frames_and_is_not_exact_and_ours_does_not(report: DecodeReport) -> None:
    frame = 32
    for window, exact, head, quiet in (report.results[:4], report.results[4:]):
        assert (window.first_audio_tokens, exact.first_audio_tokens, head.first_audio_tokens) == (28, 35, 14)
        assert (window.samples_lost, exact.samples_lost, head.samples_lost) == (3 * frame, 0, 0)
        assert exact.max_abs_error < 1e-5 < head.max_abs_error
        assert exact.error_db < -100 < window.error_db
        assert quiet.samples_lost == 0
        assert quiet.error_db > -60, "what it leaves out is heard"


def test_the_head_is_reported_packet_by_packet_and_by_the_length_of_its_first(report: DecodeReport) -> None:
    packets = report.results[2].packets
    assert [(packet.tokens, packet.start, packet.samples) for packet in packets] == [
        (14, 0, 32),
        (21, 32, 16),
        (28, 48, 16),
    ]
    by_length = report.first_packets["saved"]
    assert [packet.samples for packet in by_length] == [16, 24, 32]
    assert by_length[-1] == packets[0]


def test_the_report_is_a_table_and_json(report: DecodeReport) -> None:
    lines = report.table().splitlines()
    assert any(line.startswith("loaded") and "exact + head" in line and "14 tok 32 smp" in line for line in lines)
    assert DecodeReport.model_validate_json(report.to_json()) == report


@pytest.mark.skipif(not STANDIN.is_dir(), reason="the stand-in has not been made")
def test_the_stand_in_decodes_exactly_and_its_head_is_40_db_below_the_signal() -> None:
    report = run({"stand-in": STANDIN}, sessions=(1,), repetitions=1, least_s=0)
    _, exact, head = report.results
    assert exact.max_abs_error < 1e-4
    assert (exact.samples_lost, head.samples_lost) == (0, 0)
    assert head.first_audio_tokens == 14
    assert all(packet.error_db <= -40 for packet in head.packets)


def test_the_random_codec_is_the_published_one_in_shape() -> None:
    codec = random_codec()
    assert sum(parameter.numel() for parameter in codec.parameters()) == pytest.approx(19.84e6, rel=0.01)
    assert all(getattr(codec, name) == value for name, value in SNAC_24KHZ.items() if hasattr(codec, name))
