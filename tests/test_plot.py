"""Pictures: what is drawn is what was computed; the given Axes is used, and nothing else is touched."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import posenc
from attention_maps import causal, exponential
from conftest import run_child, run_python
from posenc import cli, plot
from posenc.bias import T5
from posenc.checks import extensions, position_sanity_check, rotary_decay

mpl.use("Agg")

ROPE = posenc.Rope(64, layout="half")
LLAMA = {
    "model_type": "llama",
    "hidden_size": 256,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "max_position_embeddings": 8192,
    "rope_theta": 500000.0,
    "rope_scaling": {
        **{"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0},
        "original_max_position_embeddings": 2048,
    },
}


@pytest.fixture(scope="module")
def maps() -> np.ndarray:
    rng = np.random.default_rng(3)
    rates = np.array([0, 0.02, 0.1, 0.3, 0.05, -0.02]).reshape(2, 3, 1, 1)
    return causal(rates / 0.01 * exponential(0.01, 64) + rng.normal(0, 0.5, (2, 3, 64, 64)))


@pytest.fixture(scope="module")
def report(maps: np.ndarray) -> Any:
    return position_sanity_check(maps)


@pytest.fixture(autouse=True)
def _nothing_global() -> Iterator[None]:
    """No picture opens a figure of pyplot's or changes a setting."""
    before, figures = dict(mpl.rcParams), pyplot.get_fignums()
    yield
    assert pyplot.get_fignums() == figures
    assert dict(mpl.rcParams) == before


def pictures(report: Any) -> dict[str, Any]:
    """Return every picture as a function of ax."""
    both = rotary_decay({**extensions(ROPE, 4.0, 512), "alibi": posenc.alibi_slopes(4)}, 2048)
    table = np.random.default_rng(1).normal(size=(32, 4))
    return {
        "decay": lambda ax: plot.decay(both, ax=ax),
        "bound": lambda ax: plot.decay(both, what="bound", ax=ax),
        "bias": lambda ax: plot.decay(both, what="bias", ax=ax),
        "wavelengths": lambda ax: plot.wavelengths(extensions(ROPE, 4.0, 512), context=2048, trained=512, ax=ax),
        "error": lambda ax: plot.table_error(ROPE, np.geomspace(1, 1e5, 30).round(), ax=ax),
        "alibi": lambda ax: plot.bias_map(posenc.alibi_slopes(4), 16, head=1, causal=True, ax=ax),
        "t5": lambda ax: plot.bias_map(T5(table, bidirectional=True), 16, ax=ax),
        "table": lambda ax: plot.rotation_table(ROPE, 32, ax=ax),
        "distance": lambda ax: plot.attention_by_distance(report, ax=ax),
        "heads": lambda ax: plot.attention_heads(report, ax=ax),
    }


NAMES = ["decay", "bound", "bias", "wavelengths", "error", "alibi", "t5", "table", "distance", "heads"]


@pytest.mark.parametrize("name", NAMES)
def test_the_given_axes_are_used(name: str, report: Any, tmp_path: Path) -> None:
    figure = Figure()
    ax, other = figure.subplots(1, 2)
    assert pictures(report)[name](ax) is ax
    assert ax.has_data()
    assert not other.has_data()
    assert ax.get_xlabel()
    assert ax.get_ylabel()
    assert ax.get_title("left")
    figure.savefig(tmp_path / "picture.svg")
    assert (tmp_path / "picture.svg").read_text(encoding="utf-8").count("<svg") == 1


def test_without_axes_a_figure_of_its_own() -> None:
    ax = plot.wavelengths(ROPE)
    assert isinstance(ax, Axes)
    assert ax is not plot.wavelengths(ROPE)


def line(ax: Axes, label: str) -> np.ndarray:
    return np.asarray(next(one for one in ax.lines if one.get_label() == label).get_xydata())


def test_wavelengths_are_drawn_as_they_are() -> None:
    named = extensions(ROPE, 4.0, 512)
    ax = plot.wavelengths(named, context=2048, trained=512)
    for name, rope in named.items():
        np.testing.assert_array_equal(line(ax, name)[:, 1], rope.wavelengths)
    assert {2048, 512} <= {float(one.get_ydata()[0]) for one in ax.lines if len(one.get_xdata()) == 2}  # type: ignore[arg-type, index]


def test_few_distances_are_drawn_as_they_are() -> None:
    found = rotary_decay({"one": ROPE}, np.arange(20))
    np.testing.assert_array_equal(line(plot.decay(found), "one"), np.stack([found.distances, found["one"].values], 1))
    bound = found["one"].bound
    np.testing.assert_array_equal(line(plot.decay(found, what="bound"), "one")[:, 1], bound / bound[0])


def test_many_distances_are_drawn_as_means_and_ranges() -> None:
    found = rotary_decay({"one": ROPE}, 5000)
    ax = plot.decay(found)
    x, y = line(ax, "one").T
    assert len(x) < 200
    np.testing.assert_array_equal(y[:32], found["one"].values[:32])
    band = ax.collections[0].get_paths()[0].get_extents()
    assert band.ymin == found["one"].values.min()
    assert band.ymax == found["one"].values.max()
    inside = (found.distances > (x[-3] + x[-2]) / 2) & (found.distances < (x[-2] + x[-1]) / 2)
    assert y[-2] == pytest.approx(found["one"].values[inside].mean(), abs=0.01)


def test_biases_are_drawn_as_they_are() -> None:
    found = rotary_decay({"alibi": posenc.alibi_slopes(4)}, 50)
    ax = plot.decay(found)
    for one, values in zip(ax.lines, found["alibi"].values, strict=True):
        np.testing.assert_array_equal(one.get_ydata(), values)
    image = plot.bias_map(posenc.alibi_slopes(4), 16, head=1, causal=True).images[0].get_array()
    assert image is not None
    wanted = posenc.bias.Alibi(posenc.alibi_slopes(4))(np.arange(16)[:, None], np.arange(16))[1]
    np.testing.assert_array_equal(np.ma.filled(image, 0), np.tril(wanted))
    assert np.ma.getmaskarray(image)[0, 1]


def test_tables_and_their_errors_are_drawn_as_they_are() -> None:
    mesh = plot.rotation_table(ROPE, 32, part="sin").collections[0]
    np.testing.assert_array_equal(np.asarray(mesh.get_array()).reshape(32, 32), ROPE.table(32)[1])
    where = np.array([1, 100, 10_000, 100_000])
    ax = plot.table_error(ROPE, where)
    truth = np.cos(where[:, None] * np.longdouble(10000.0) ** (-np.arange(32).astype(np.longdouble) / 32))
    cos, _ = ROPE._replace(precision="float32").table(where)
    error = line(ax, 'precision="float32"')[:, 1]
    assert (error >= np.abs(cos - truth).max(1) * (1 - 1e-6)).all()
    assert (line(ax, 'precision="exact"')[:, 1] <= 2.0**-25 * 1.01).all()
    assert error[-1] > 1e-4


def test_attention_is_drawn_as_it_is(report: Any) -> None:
    ax = plot.attention_by_distance(report)
    x, y = line(ax, "all heads").T
    np.testing.assert_array_equal(x, report.past.distances + 1)
    np.testing.assert_array_equal(y, report.past.relative)
    grey = [one for one in ax.lines if one.get_linewidth() == 0.5]
    np.testing.assert_array_equal(grey[2].get_ydata(), report.profiles[2])
    ax = plot.attention_heads(report)
    shown = np.asarray(ax.images[0].get_array())
    np.testing.assert_array_equal(shown.ravel(), [head.locality for head in report.heads])
    crosses = {(int(one.get_ydata()[0]), int(one.get_xdata()[0])) for one in ax.lines}  # type: ignore[arg-type, index]
    assert crosses == {head.head for head in report.heads if head.verdict != "decays"}


def test_wrong_input(report: Any) -> None:
    with pytest.raises(ValueError, match="the report has no bias curves; its kinds: rotary"):
        plot.decay(rotary_decay(ROPE, 5), what="bias")
    with pytest.raises(ValueError, match="what must be one of"):
        plot.decay(rotary_decay(ROPE, 5), what="else")
    with pytest.raises(TypeError, match=r"ropes must be a posenc\.Rope"):
        plot.wavelengths(3)
    with pytest.raises(ValueError, match="head must be at most 3, got 4"):
        plot.bias_map(posenc.alibi_slopes(4), head=4)
    with pytest.raises(TypeError, match=r"rope must be a posenc\.Rope"):
        plot.rotation_table("rope")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="part must be one of 'cos', 'sin'"):
        plot.rotation_table(ROPE, part="tan")


def test_matplotlib_is_optional() -> None:
    blocked = "import sys; sys.modules['matplotlib'] = None; import posenc; from posenc import plot\n"
    done = run_child(f"{blocked}plot.wavelengths(posenc.Rope(8, layout='half'))")
    assert 'ImportError: plots need matplotlib: pip install "posenc[plot]"' in done.stderr
    assert run_python("import posenc, sys; posenc.plot; print('matplotlib' in sys.modules)") == "False"


# ---- the command ----


@pytest.fixture
def config(tmp_path: Path) -> str:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(LLAMA), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("kind", ["wavelengths", "decay", "bound", "table", "error"])
def test_command_on_a_config(kind: str, config: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "picture.png"
    assert cli.main(["plot", config, "--kind", kind, "-o", str(out)]) == 0
    assert capsys.readouterr().out.strip() == str(out)
    assert out.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert cli.main(["plot", config, "--kind", kind, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)


def test_command_on_attention(maps: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "attention.npy"
    np.save(path, maps)
    for kind in ("distance", "heads"):
        out = tmp_path / f"{kind}.svg"
        assert cli.main(["plot", str(path), "--kind", kind, "-o", str(out), "--json"]) == 0
        assert len(json.loads(capsys.readouterr().out)["heads"]) == 6
        assert "<svg" in out.read_text(encoding="utf-8")


def test_command_names_the_file_it_writes(
    config: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["plot", config]) == 0
    assert capsys.readouterr().out == "posenc-wavelengths.png\n"
    assert (tmp_path / "posenc-wavelengths.png").is_file()


def test_command_refuses(config: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, message in (
        ([config, "--kind", "heads"], "--kind heads is not of a config"),
        ([str(tmp_path / "none.npy")], "No such file"),
        ([str(tmp_path / "none.json")], "none.json"),
        ([config, "-o", str(tmp_path / "a.unknown")], "unknown"),
    ):
        assert cli.main(["plot", *arguments]) == 2
        assert message in capsys.readouterr().err
