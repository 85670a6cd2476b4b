"""The wheel alone, in an environment of its own and far from the checkout."""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    """The bin folder of a fresh environment that holds the wheel; its dependencies are lent."""
    folder = tmp_path_factory.mktemp("wheel")
    quiet = ["--quiet", "--disable-pip-version-check", "--no-deps"]
    pip = [sys.executable, "-m", "pip"]
    build = [*pip, "wheel", *quiet, "--no-build-isolation", "-w", str(folder), str(CHECKOUT)]
    subprocess.run(build, check=True)
    (wheel,) = folder.glob("carousel_asr-*.whl")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "env"], check=True)
    binaries = folder / "env" / ("Scripts" if os.name == "nt" else "bin")
    python = ["--python", str(binaries / "python")]
    subprocess.run([*pip, *python, "install", *quiet, str(wheel)], check=True)
    (site,) = (folder / "env").glob("lib/python*/site-packages")
    (site / "lent.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return binaries


def run(fresh, *words):
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    return subprocess.run(
        [fresh / words[0], *words[1:]], cwd=fresh, env=environment, capture_output=True, text=True
    )


def test_help(fresh):
    done = run(fresh, "asr", "--help")
    assert done.returncode == 0, done.stderr
    for command in ("prepare", "train", "transcribe", "score", "demo"):
        assert command in done.stdout


def test_every_recipe_composes_there(fresh):
    code = (
        "import asr, pathlib, sys; from asr.train.recipe import load_config, recipes\n"
        "assert pathlib.Path(asr.__file__).is_relative_to(sys.prefix), asr.__file__\n"
        "for r in recipes(): load_config(f'recipes/{r.parent.name}/{r.name}', ['run_dir=x'])\n"
        "print(len(recipes()))"
    )
    done = run(fresh, "python", "-c", code)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == len(list((CHECKOUT / "recipes").glob("*/*.yaml")))


def test_what_the_small_runtime_takes_is_there(fresh):
    where = 'import sysconfig; print(sysconfig.get_path("purelib"))'
    site = Path(run(fresh, "python", "-c", where).stdout.strip())
    listed = (site / "asr" / "requirements" / "runtime.txt").read_text(encoding="utf-8")
    assert "onnxruntime" in listed


def test_help_waits_for_nothing_heavy():
    code = (
        "import sys; from asr.cli import register; register()\n"
        "heavy = {'torch', 'numba', 'librosa', 'hydra', 'jiwer', 'matplotlib', 'scipy', 'numpy'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
