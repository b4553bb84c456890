"""posenc check, identify and golden: what they print, and their exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import posenc
from conftest import run_child
from posenc import cli, golden

SUBJECTS = """
import numpy as np, posenc
rope = posenc.Rope(32, layout="interleaved", base=500000.0)

def right(x, positions):
    return rope(x, positions=positions)

def late(x, positions):
    return rope(x, positions=positions + 1)

def broken(x, positions):
    raise RuntimeError("out of order")
"""
LIKE = ["--layout", "interleaved", "--head-dim", "32", "--base", "500000"]


@pytest.fixture
def subjects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "subjects_of_commands.py").write_text(SUBJECTS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = cli.main(arguments)
    out, err = capsys.readouterr()
    return code, out, err


@pytest.mark.usefixtures("subjects")
def test_check(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "check", "subjects_of_commands:right", *LIKE)
    assert code == 0
    assert out.startswith("a right rotation of Rope(32")
    assert "\x1b[" not in out
    code, out, _ = run(capsys, "check", "subjects_of_commands:late", *LIKE)
    assert code == 1
    assert "FAILED  fault" in out
    assert "offset: positions +1" in out


@pytest.mark.usefixtures("subjects")
def test_check_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "check", "subjects_of_commands:late", "--rope", "subjects_of_commands:rope", "--json")
    found = json.loads(out)
    assert (code, found["ok"], found["check"]) == (1, False, "RopeCheck")
    assert found["diagnosis"]["faults"][0]["fault"] == "offset"
    assert {p["name"] for p in found["properties"] if not p["ok"]} == {"rope_matches", "origin", "inverse"}


@pytest.mark.usefixtures("subjects")
def test_check_by_config(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    config = {"model_type": "llama", "hidden_size": 64, "num_attention_heads": 2, "rope_theta": 500000.0}
    (tmp_path / "config.json").write_text(json.dumps(config))
    code, out, _ = run(capsys, "check", "subjects_of_commands:right", "--config", str(tmp_path / "config.json"))
    assert code == 1  # a llama's pairs are halves
    assert "layout: interleaved, expected half" in out


def attention(rate: float) -> np.ndarray:
    distance = np.arange(48)[:, None] - np.arange(48)
    weights = np.where(distance >= 0, np.exp(-rate * distance), 0.0)
    return (weights / weights.sum(axis=-1, keepdims=True)).astype(np.float32)


def test_check_of_an_attention_map(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for rate, wanted in ((0.1, 0), (0.0, 1)):
        np.save(tmp_path / "attention.npy", attention(rate))
        code, out, _ = run(capsys, "check", str(tmp_path / "attention.npy"))
        assert (code, out.startswith("attention by distance")) == (wanted, True)
    code, out, _ = run(capsys, "check", str(tmp_path / "attention.npy"), "--json")
    assert (code, json.loads(out)["ok"]) == (1, False)


@pytest.mark.usefixtures("subjects")
def test_identify(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "identify", "subjects_of_commands:right", "--head-dim", "32")
    assert code == 0
    assert out.startswith("rotation: interleaved, base 500000")
    code, out, _ = run(capsys, "identify", "subjects_of_commands:late", "--head-dim", "32", "--json")
    assert json.loads(out)["facts"]["position_offset"] == 1
    assert code == 0  # counting from 1 is a convention


@pytest.mark.usefixtures("subjects")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["check", "subjects_of_commands:right"], "what it should be: give --config, --rope, or --layout and"),
        (["check", "subjects_of_commands"], "subject must be module:name, got 'subjects_of_commands'"),
        (["identify", "subjects_of_commands:right"], "give --head-dim, --config or --rope"),
        (["check", "subjects_of_commands:wrong", *LIKE], "subjects_of_commands has no wrong"),
        (["check", "no_such_module_here:f", *LIKE], "No module named 'no_such_module_here'"),
        (["check", "missing.npy"], "No such file"),
        (["identify", "subjects_of_commands:broken", "--head-dim", "32"], "RuntimeError: out of order"),
    ],
)
def test_what_cannot_be_used(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (2, "")
    assert message in err


def test_nothing_is_loaded_for_another_command() -> None:
    code = "import sys; from posenc import cli; cli.main(['runtime']); print('posenc.checks' in sys.modules)"
    child = run_child(code)
    assert child.returncode == 0, child.stderr
    assert child.stdout.splitlines()[-1] == "False"


# ---- golden vectors


def test_golden_files_say_the_same(tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors.numpy")
    for name, build in golden.FAMILIES.items():
        rope = build()
        paths = golden.write(tmp_path, name, rope)
        assert [path.suffix for path in paths] == [".json", ".npz", ".safetensors"]
        assert max(path.stat().st_size for path in paths) < 120_000
        arrays, others = dict(np.load(paths[1])), safetensors.load_file(paths[2])
        assert arrays.keys() == others.keys()
        assert all(np.array_equal(arrays[key], others[key]) for key in arrays)
        spec = json.loads(paths[0].read_text())
        assert spec["arrays"] == {k: {"dtype": str(a.dtype), "shape": list(a.shape)} for k, a in arrays.items()}
        assert np.array_equal(rope(arrays["q"], positions=arrays["positions"]), arrays["q_rotated"])


def test_golden_results_follow_the_rule_in_their_spec(tmp_path: Path) -> None:
    """An engine that knows nothing but the files: plain NumPy, by the words of the JSON."""
    for name in ("llama3_1", "gptj", "deepseek_v3"):
        paths = golden.write(tmp_path, name, golden.FAMILIES[name]())
        part, arrays = json.loads(paths[0].read_text())["parts"][0], dict(np.load(paths[1]))
        first, width = part["rotary_offset"], part["rotary_dim"]
        x, y = arrays["k"][..., first : first + width], arrays["k"].copy()
        pairs = np.arange(width // 2)
        read = (pairs, pairs + width // 2) if part["layout"] == "half" else (2 * pairs, 2 * pairs + 1)
        written = (2 * pairs, 2 * pairs + 1) if part["layout"] == "interleaved" else (pairs, pairs + width // 2)
        a, b, cos, sin = x[..., read[0]], x[..., read[1]], arrays["cos"], arrays["sin"]
        y[..., first + written[0]], y[..., first + written[1]] = a * cos - b * sin, b * cos + a * sin
        assert np.array_equal(y, arrays["k_rotated"])
        angles = arrays["positions"][:, None].astype(np.longdouble) * np.array(part["inv_freq"], np.longdouble)
        assert np.abs(cos - part["attention_factor"] * np.cos(angles)).max() < 1e-7


def test_golden_numbers_are_those_of_the_formula() -> None:
    """The formula in the docstring, in Python's integers."""

    def h(n: int) -> int:
        n = n * 2654435769 % 2**32
        n ^= n >> 15
        n = n * 2246822519 % 2**32
        return n ^ n >> 13

    wanted = [((h(i + 1 + 65536) >> 16) - 32768) / 32768 for i in range(500)]
    assert golden.numbers(500, 1).tolist() == wanted
    assert len(set(wanted)) > 490
    assert abs(np.mean(wanted)) < 0.1


def test_golden_bytes_are_the_same_every_time(tmp_path: Path) -> None:
    rope = posenc.Rope(16, layout="half")
    first, second = (golden.write(tmp_path / folder, "rope", rope) for folder in "ab")
    assert [a.read_bytes() for a in first] == [b.read_bytes() for b in second]


def test_golden_command(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, out, _ = run(
        capsys, "golden", str(tmp_path), "--layout", "half", "--head-dim", "16", "--name", "mine", "--json"
    )
    assert code == 0
    assert [Path(path).name for path in json.loads(out)][:2] == ["mine.json", "mine.npz"]
    code, out, _ = run(capsys, "golden", str(tmp_path / "all"))
    assert code == 0
    assert len(out.splitlines()) >= 2 * len(golden.FAMILIES)
