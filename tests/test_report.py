"""Pages of results: their numbers and pictures, names that are no markup, and a real browser."""

import base64
import hashlib
import io
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

import tfsaliency as tfs
from tfsaliency import synthetic
from tfsaliency.tables import short
from tfsaliency.visualization.markup import table
from tfsaliency.visualization.tiles import color_map

BAD = "<img src=x onerror=alert(1)>.png"
CLASS = "<script>alert(2)</script> & <b>bold</b>"


@pytest.fixture(scope="module")
def results():
    """Maps, two checks and an evaluation, with names that are markup."""
    model, data = synthetic.shapes_model(), synthetic.make_shapes(8, seed=0)
    names = [f"{CLASS} {i}" for i in range(8)]
    methods = ["gradient", "grad_cam", "guided_backprop"]
    maps = tfs.saliency_map(model, data.images, methods, class_names=names, verbose=0)
    maps = replace(maps, names=tuple(f"photos/{i} {BAD}" for i in range(8)))
    checks = [
        tfs.sanity_check(model, data.images, methods, plan=plan, seeds=2, verbose=0)
        for plan in (["conv8"], "cascade")
    ]
    return maps, checks, tfs.evaluate(model, data, methods, verbose=0)


class _Page(HTMLParser):
    """The text and the elements of a page."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.cells, self._open = [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        self._open.append(tag)
        if tag in ("td", "th", "tr"):
            self.cells.append([] if tag == "tr" else "")

    def handle_data(self, data):
        if self._open and self._open[-1] in ("td", "th"):
            self.cells[-1] += data

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


def _texts(page):
    return [cell for cell in _Page(page).cells if isinstance(cell, str)]


def _picture(address):
    kind, _, data = address.partition(",")
    assert kind.startswith("data:image/")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"), float)


def test_a_report_holds_every_map_and_every_number(results, tmp_path):
    maps, checks, evaluation = results
    path = tmp_path / "report.html"
    model = synthetic.shapes_model()
    tfs.write_report(path, maps, checks, evaluation, model=model, title="A <title>", verbose=0)
    text = path.read_text(encoding="utf-8")
    page = _Page(text)
    shown = {a["alt"]: a["src"] for a in page.all("img")}
    for name in maps:
        for i in range(8):
            alt = f"{name} map of {i} {BAD}, {maps.caption(i)}"
            error = np.abs(_picture(shown[alt]) - color_map(maps[name][i].astype(float)))
            assert error.mean() < 12  # of 255; lossy
    cells = _texts(text)
    for check in checks:
        at = check.headline
        for method, verdicts in check.verdicts.items():
            v = verdicts[at]
            row = [method, v.verdict, short(v.invariance), f"{short(v.low)} to {short(v.high)}"]
            assert any(cells[i : i + 4] == row for i in range(len(cells)))
    for metric in evaluation.metrics:
        low, high = evaluation.interval("grad_cam", metric)
        mean = evaluation.mean("grad_cam", metric)
        assert f"{short(mean)} ({short(low)} to {short(high)})" in cells
    each = [w.numpy() for w in model.weights]
    lines = [f"{w.dtype.name} {w.shape} ".encode() + w.tobytes() for w in each]
    digests = "\n".join(hashlib.sha256(line).hexdigest() for line in lines)
    weights = hashlib.sha256(digests.encode()).hexdigest()
    for digest in (weights, hashlib.sha256(maps["grad_cam"].tobytes()).hexdigest()):
        assert f"sha256 {digest}" in text
    assert "seeds</dt><dd>0, 1</dd>" in text and tfs.__version__ in text
    assert text.count("What the verdicts do not say") == 1


def test_names_are_text_and_nothing_is_loaded(results, tmp_path):
    path = tmp_path / "report.html"
    maps, checks, evaluation = results
    tfs.write_report(path, maps, checks, evaluation, title=f"{BAD}{CLASS}", verbose=0)
    text = path.read_text(encoding="utf-8")
    page = _Page(text)
    (script,) = page.all("script")
    assert script == {} and not page.all("b") and not page.all("link")
    for tag, attributes in page.elements:
        assert not any(name.startswith("on") for name in attributes), tag
        for name in ("src", "href"):
            assert attributes.get(name, "data:").startswith(("data:", "#"))
    assert not re.findall(r"url\(\"(?!data:)", text)
    policy = next(a["content"] for a in page.all("meta") if "http-equiv" in a)
    inside = re.search(r"<script>(.*?)</script>", text, re.DOTALL).group(1)
    digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy and "default-src 'none'" in policy


def test_verdicts_are_said_in_words(results, tmp_path):
    check = results[1][0]
    tfs.write_report(tmp_path / "report.html", sanity=check, verbose=0)
    text = (tmp_path / "report.html").read_text()
    v = check.verdicts["guided_backprop"][0]
    assert v.verdict == "does not depend"
    assert (
        "guided_backprop: the maps hardly change, so they do not show what this network has "
        f"learned. About {100 * v.invariance:.0f} % of what they show stays the same (95 % "
        f"interval: {100 * v.low:.0f} to {100 * v.high:.0f} %)"
    ) in text
    assert 'id="maps"' not in text and 'id="evaluation"' not in text


def test_fifty_photos_stay_below_15_mb(tmp_path):
    rng = np.random.default_rng(0)
    names = [f"m{k}" for k in range(16)]
    shape = (50, 224, 224)
    maps = tfs.SaliencyMaps(
        {name: rng.normal(size=shape).astype("float32") for name in names},
        rng.integers(0, 256, (*shape, 3)).astype("float32"),
        np.zeros(50, int),
        np.zeros(50),
        "logit",
        np.ones((50, 1)),
        {name: tfs.Coverage(name, 1, 1) for name in names},
    )
    tfs.write_report(tmp_path / "few.html", replace(maps, maps={"m0": maps["m0"]}), verbose=0)
    tfs.write_report(tmp_path / "many.html", maps, verbose=0)
    few, many = ((tmp_path / f"{name}.html").stat().st_size for name in ("few", "many"))
    assert few < many < 15e6  # noise, which compresses worst


def test_sequences_are_reported_as_figures(tmp_path):
    model = keras.Sequential(
        [keras.Input((20, 1)), keras.layers.Conv1D(4, 3, activation="relu"), keras.layers.Flatten(),
         keras.layers.Dense(2, activation="softmax")]
    )  # fmt: skip
    maps = tfs.saliency_map(model, np.random.default_rng(0).normal(size=(3, 20, 1)))
    tfs.write_report(tmp_path / "report.html", maps, verbose=0)
    pictures = [a["src"] for a in _Page((tmp_path / "report.html").read_text()).all("img")]
    assert len(pictures) == 3
    assert all(len(np.unique(_picture(each))) > 20 for each in pictures)


def test_what_is_no_result_is_refused(results, tmp_path):
    maps, checks, _ = results
    for wrong in (
        {},
        {"maps": checks[0]},
        {"sanity": [maps]},
        {"evaluation": maps},
        {"maps": maps, "model": 3},
        {"maps": maps, "title": 3},
    ):
        with pytest.raises(tfs.OptionError, match="Expected"):
            tfs.write_report(tmp_path / "report.html", **wrong)
    assert not list(tmp_path.iterdir())


def test_results_of_different_models_are_told_apart(results, tmp_path):
    maps, checks, evaluation = results
    other = keras.Sequential([keras.Input((64, 64, 3)), keras.layers.Flatten()], name="other")
    with pytest.raises(tfs.OptionError, match="another model: shapes"):
        tfs.write_report(tmp_path / "report.html", maps, model=other, verbose=0)
    changed = keras.models.clone_model(synthetic.shapes_model())
    with pytest.raises(tfs.OptionError, match="another weights: sha256"):
        tfs.write_report(tmp_path / "report.html", evaluation=evaluation, model=changed, verbose=0)
    vit = replace(evaluation, settings={**evaluation.settings, "model": "vit"})
    tfs.write_report(tmp_path / "report.html", maps, checks, vit, verbose=0)
    sentence = "These results are of different models. maps: shapes; "
    assert (tmp_path / "report.html").read_text().count(sentence) == 2  # above, and in problems


def test_without_jinja2_the_extra_is_named(results, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(ImportError, match=r"pip install 'tfsaliency\[report\]'"):
        tfs.write_report(tmp_path / "report.html", results[0])


def test_results_in_notebooks_have_their_numbers_and_pictures(results):
    maps, checks, evaluation = results
    page = maps._repr_html_()
    pictures = [a["src"] for a in _Page(page).all("img")]
    assert len(pictures) == 4 * 4  # four images, each with three maps
    assert "<p>Not shown: 4 images.</p>" in page
    for i in range(4):
        for k, name in enumerate(maps, start=1):
            drawn = color_map(maps[name][i].astype(float))
            assert np.abs(_picture(pictures[4 * i + k]) - drawn).mean() < 12
    for coverage in maps.coverage.values():
        assert f"{coverage.reached} of {coverage.relus}" in _texts(page)
    check = checks[1]
    cells = _texts(check._repr_html_())
    for method, verdicts in check.verdicts.items():
        assert {method, short(verdicts[check.headline].invariance)} <= set(cells)
    for step in check.steps:
        assert step.name in cells
    verdict = check.verdicts["gradient"][0]
    assert {verdict.verdict, short(verdict.invariance)} <= set(_texts(verdict._repr_html_()))
    cells = _texts(evaluation._repr_html_())
    low, high = evaluation.interval("gradient", "relevance_mass")
    mean = evaluation.mean("gradient", "relevance_mass")
    assert f"{short(mean)} ({short(low)} to {short(high)})" in cells
    coverage = maps.coverage["grad_cam"]
    assert str(coverage.grids[0]) in _texts(coverage._repr_html_())
    for each in (page, check._repr_html_(), evaluation._repr_html_()):
        tags = {tag for tag, _ in _Page(each).elements}
        assert not tags & {"script", "style", "b"} - {"b"}
        assert "background" not in each and "color:" not in each  # those of the notebook


def test_a_table_escapes_its_cells():
    page = _Page(table([["<b>a", "b"], ["<i>c", "<u>d & e"]]))
    assert [cell for cell in page.cells if isinstance(cell, str)] == [
        "<b>a",
        "b",
        "<i>c",
        "<u>d & e",
    ]
    assert {tag for tag, _ in page.elements} == {"table", "thead", "tbody", "tr", "th", "td"}


def test_names_in_a_notebook_are_text(results):
    page = _Page(results[0]._repr_html_())
    assert not page.all("script")
    assert all(a["src"].startswith("data:") for a in page.all("img"))


CHROMIUM = Path("/usr/bin/chromium")


@pytest.mark.slow
def test_the_report_in_a_browser(results, tmp_path):
    """Offline and from a file; the slider is moved by a pointer, and axe-core looks at the page."""
    playwright = pytest.importorskip("playwright.sync_api")
    axe = pytest.importorskip("axe_core_python")
    if not CHROMIUM.exists():
        pytest.skip(f"no browser at {CHROMIUM}")
    maps, checks, evaluation = results
    path = tmp_path / "report.html"
    tfs.write_report(path, maps, checks, evaluation, title=BAD, verbose=0)
    source = (Path(axe.__file__).parent / "axe.min.js").read_text()
    with playwright.sync_playwright() as start:
        browser = start.chromium.launch(
            executable_path=str(CHROMIUM),
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        for width, scheme in ((1280, "light"), (390, "light"), (1280, "dark"), (390, "dark")):
            context = browser.new_context(
                viewport={"width": width, "height": 900},
                color_scheme=scheme,
                offline=True,
                bypass_csp=True,  # for axe-core alone; the script of the page is tested below
            )
            page, heard = context.new_page(), []
            page.on("request", lambda r, heard=heard: heard.append(r.url))
            page.on("console", lambda m, heard=heard: heard.append(m.text))
            page.on("pageerror", lambda e, heard=heard: heard.append(str(e)))
            page.on("dialog", lambda d, heard=heard: heard.append(d.message) or d.dismiss())
            page.goto(path.as_uri())
            page.wait_for_load_state("networkidle")
            assert [each for each in heard if not each.startswith("data:")] == [path.as_uri()]
            assert page.title() == BAD
            wide = page.evaluate("document.documentElement.scrollWidth")
            assert wide <= width
            page.evaluate(source)
            violations = page.evaluate("axe.run().then(found => found.violations)")
            assert [v["id"] for v in violations if v["impact"] in ("serious", "critical")] == []
            context.close()
        page = browser.new_context(offline=True).new_page()
        page.goto(path.as_uri())
        slider = page.locator("article .slider input").first
        slider.scroll_into_view_if_needed()
        box = slider.bounding_box()
        tile = page.locator("article .tile img").first
        opacity = "element => getComputedStyle(element).opacity"
        assert tile.evaluate(opacity) == "0.75"
        middle = box["y"] + box["height"] / 2
        page.mouse.move(box["x"] + 0.75 * box["width"], middle)
        page.mouse.down()
        page.mouse.move(box["x"] + 0.25 * box["width"], middle, steps=5)
        page.mouse.up()
        assert float(tile.evaluate(opacity)) == pytest.approx(0.25, abs=0.05)
        second = page.locator("article").nth(1).locator(".tile img").first
        assert second.evaluate(opacity) == "0.75"
        page = browser.new_context(java_script_enabled=False, offline=True).new_page()
        page.goto(path.as_uri())
        assert not page.locator(".slider").first.is_visible()
        assert page.locator("article .tile img").first.is_visible()
        browser.close()


@pytest.mark.slow
def test_importing_the_package_stays_quick():
    """The report's and the notebooks' packages are not imported before they are needed."""
    code = (
        "import sys, tensorflow, keras; before = set(sys.modules); import tfsaliency;"
        "tfsaliency.saliency_map; new = {n.split('.')[0] for n in set(sys.modules) - before};"
        "print(sorted(new & {'jinja2', 'matplotlib', 'IPython', 'tensorboard'}))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
