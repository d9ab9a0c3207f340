"""Where a bare machine's pip gets packages from: the host's places, and a wheel that has lost its library."""

from __future__ import annotations

import zipfile
from pathlib import Path

from tests.bare.indexes import directories, pip_conf, with_files_in, without_library


def test_a_pure_wheel_is_the_same_release_without_its_library(tmp_path: Path) -> None:
    whole = tmp_path / "soundfile-1.0-py2.py3-none-manylinux_2_28_x86_64.whl"
    with zipfile.ZipFile(whole, "w") as wheel:
        wheel.writestr("soundfile.py", "")
        wheel.writestr("_soundfile_data/libsndfile_x86_64.so", "code")
        wheel.writestr("soundfile-1.0.dist-info/WHEEL", "Root-Is-Purelib: false\nTag: py3-none-manylinux_2_28_x86_64\n")
        wheel.writestr("soundfile-1.0.dist-info/RECORD", "")
    pure = without_library(whole, tmp_path)
    assert pure.name == "soundfile-1.0-py2.py3-none-any.whl"
    with zipfile.ZipFile(pure) as wheel:
        assert "_soundfile_data/libsndfile_x86_64.so" not in wheel.namelist()
        assert b"Root-Is-Purelib: true\nTag: py2-none-any\nTag: py3-none-any\n" in wheel.read(
            "soundfile-1.0.dist-info/WHEEL"
        )
        assert b"soundfile.py,sha256=" in wheel.read("soundfile-1.0.dist-info/RECORD")


def test_local_places_are_those_that_a_configuration_names(tmp_path: Path) -> None:
    (tmp_path / "index" / "simple").mkdir(parents=True)
    (tmp_path / "wheels").mkdir()
    settings = {
        "extra-index-url": f"https://packages.example/simple file://{tmp_path}/index/simple",
        "find-links": f"{tmp_path}/wheels {tmp_path}/gone",
        "timeout": "60",
    }
    assert directories(settings) == [tmp_path / "index", tmp_path / "wheels"]


def test_certificates_come_along_as_a_copy(tmp_path: Path) -> None:
    (tmp_path / "ca.crt").write_text("certificate")
    moved = with_files_in(tmp_path / "root", {"cert": f"{tmp_path}/ca.crt", "timeout": "60"}, seen_as=Path("/etc/pip"))
    assert pip_conf(moved) == "[global]\ncert = /etc/pip/cert-ca.crt\ntimeout = 60\n"
    assert (tmp_path / "root" / "cert-ca.crt").read_text() == "certificate"
