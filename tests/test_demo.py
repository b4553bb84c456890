"""The demo and the command: what they claim is measured, and the claims hold."""

import json
import subprocess
import sys

import pytest

from posenc import cli, demo


def test_every_claim_of_the_demo_holds() -> None:
    measured = demo.run()
    place = measured["in_place"]
    assert place["same_pointers"]
    assert place["changed"]
    assert place["peak_bytes_allocated"] < 1024 < place["bytes"]
    assert measured["reference"]["float32"] < 2e-6  # activations up to 15: float32 noise
    assert 0 < measured["relative"] < 2e-7
    assert 0 < measured["norms"] < 2e-7
    for positions, error in measured["table_error"].items():
        assert 0 < error["exact"] < 3.1e-8  # half a unit in the last place of float32
        assert error["float32"] > 1e-8 * positions  # what the recipe costs; a check that can see an error
    assert set(measured["time_us"]) == {"45", "4096"}
    for verb, error, allocated in (("add", 1e-6, 1024), ("bias", 1e-6, 4096)):
        assert measured[verb]["same_pointers"]
        assert measured[verb]["changed"]
        assert measured[verb]["peak_bytes_allocated"] < allocated < measured[verb]["bytes"]
        assert 0 < measured[verb]["difference"] < error


def test_command_prints_one_screen() -> None:
    done = subprocess.run([sys.executable, "-m", "posenc", "demo"], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 120
    assert "Rope(64, layout='half', base=100000.0, precision='float32')" in done.stdout
    assert "same memory before and after: yes" in done.stdout
    assert done.stderr == ""


def test_command_prints_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["demo", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["in_place"]["same_pointers"] is True


def test_a_copy_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo says NO, and fails, where the rotation was not done in place."""
    rotate = demo.Rope.__call__

    def copying(self: demo.Rope, q: object, k: object = None, **keywords: object) -> object:
        keywords.pop("out", None)
        return rotate(self, q, k, **keywords)  # type: ignore[arg-type]

    monkeypatch.setattr(demo.Rope, "__call__", copying)
    measured = demo.measure_in_place(demo.Rope(64, layout="half"), demo.load())
    assert not measured["same_pointers"]
    assert measured["peak_bytes_allocated"] > measured["bytes"]


@pytest.mark.parametrize("verb", ["in_place", "add", "bias"])
def test_a_copy_is_a_bad_verdict(
    verb: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    measured = demo.run()
    measured[verb]["same_pointers"] = False
    monkeypatch.setattr(demo, "run", lambda: measured)
    assert cli.main(["demo"]) == 1
    assert capsys.readouterr().out


def test_runtime_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["runtime"]) == 0
    assert "instruction set: " in capsys.readouterr().out


def test_no_command_is_an_error() -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main([])
    assert stopped.value.code == 2
