"""How natural and how clean speech sounds, as DNSMOS judges it: the models lie in the wheel `speechmos` (extra `ears`).

They were trained on listeners' answers (ITU-T P.835): 1 is bad, 5 excellent. The wheel's own Python, which wants
librosa, is not used. Sources of the numbers: speechmos 0.0.1.1, `dnsmos.py`.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soxr

from app.errors import ConfigurationError

RATE_HZ = 16_000
WINDOW_S, HOP_S = 9.01, 1.0
MISSING = "DNSMOS is not installed; `pip install 'carillon[ears]'` adds it"

_SIGNAL = (-0.08397278, 1.22083953, 0.0052439)
_BACKGROUND = (-0.13166888, 1.60915514, -0.39604546)
_OVERALL = (-0.06766283, 1.11546468, 0.04602535)
"""Polynomials from the network's answers to listeners' scores, the highest power first."""


def installed() -> bool:
    return all(importlib.util.find_spec(name) is not None for name in ("speechmos", "onnxruntime"))


@dataclass(frozen=True)
class Opinion:
    """Scores of 1 to 5: of the voice itself, of how quiet it is behind it, of both."""

    signal: float
    background: float
    overall: float


class Dnsmos:
    """A loaded judge."""

    def __init__(self) -> None:
        """Raises ConfigurationError where the extra is missing."""
        package = importlib.util.find_spec("speechmos")
        if package is None or package.submodule_search_locations is None or not installed():
            raise ConfigurationError(MISSING)
        import onnxruntime

        model = Path(next(iter(package.submodule_search_locations))) / "dnsmos_models" / "sig_bak_ovr.onnx"
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])

    def judge(self, samples: np.ndarray, sample_rate_hz: int) -> Opinion | None:
        """The mean over windows of 9 s; shorter speech is repeated to fill one. None for no samples."""
        if not len(samples):
            return None
        at_rate = soxr.resample(samples, sample_rate_hz, RATE_HZ) if sample_rate_hz != RATE_HZ else samples
        length = int(WINDOW_S * RATE_HZ)
        if len(at_rate) < length:
            at_rate = np.resize(at_rate, length)
        hop = round(HOP_S * RATE_HZ)
        windows = [at_rate[start : start + length] for start in range(0, len(at_rate) - length + 1, hop)]
        answers = [self._session.run(None, {"input_1": window[None].astype(np.float32)})[0] for window in windows]
        signal, background, overall = np.array(answers, np.float64)[:, 0].T
        return Opinion(
            float(np.polyval(_SIGNAL, signal).mean()),
            float(np.polyval(_BACKGROUND, background).mean()),
            float(np.polyval(_OVERALL, overall).mean()),
        )


def mean_opinion(opinions: Sequence[Opinion]) -> Opinion | None:
    """The mean of several; None of none."""
    if not opinions:
        return None
    signal, background, overall = np.mean([(one.signal, one.background, one.overall) for one in opinions], axis=0)
    return Opinion(float(signal), float(background), float(overall))
