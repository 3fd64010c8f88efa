"""The page of a verification: it shows the report's values, whatever the texts, from one file."""

from __future__ import annotations

import base64
import io
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from tests.browser import check_readable
from tests.command import call
from tests.verify.verified import Given, verified
from vlmc.artifact.manifest import read_manifest
from vlmc.artifact.write import seal
from vlmc.image.tiles import TileRule
from vlmc.report.escape import shorten
from vlmc.verify.ladder import Rung
from vlmc.verify.page import grid_images
from vlmc.verify.sweep import MeasuredPoint

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = (
    "<script>alert(1)</script>",
    "</td></table><img src=x onerror=alert(1)>",
    "W" * 3000,
    "שלום עולם ١٢٣ \u202eevil\u202d",
    "👩‍👩‍👧‍👦🏳️‍🌈" * 20,
    "a\x00b\x1bc\ud800d\uffffe",
    "]]>&amp;<!-- \" ' `",
    "",
)


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """640 x 480 pixels, to be stretched to 4 x 3 tiles by the published rule."""
    path = tmp_path / "picture.png"
    Image.fromarray(np.full((480, 640, 3), (20, 120, 220), np.uint8)).save(path)
    return path


def parsed(page: str) -> ElementTree.Element:
    return ElementTree.fromstring(page.removeprefix("<!DOCTYPE html>\n"))


def tables(root: ElementTree.Element) -> dict[str, list[list[str]]]:
    """Rows of each table by its caption, or by its first column's name."""
    found = {}
    for table in root.iter("table"):
        rows = [["".join(cell.itertext()) for cell in row] for row in table.iter("tr")]
        caption = table.find("caption")
        name = rows[0][0] if caption is None else "".join(caption.itertext())
        found.setdefault(name, rows)
    return found


def check_needs_nothing(root: ElementTree.Element) -> None:
    """Every reference is a JPEG inside of the page, or an element of it."""
    ids = {element.get("id") for element in root.iter() if element.get("id")}
    for element in root.iter():
        assert element.tag not in ("script", "link", "img", "iframe", "object", "a", "form")
        assert not any(name.startswith("on") or name == "src" for name in element.attrib)
        target = element.get("href", "data:image/jpeg;base64,")
        assert target.startswith("data:image/jpeg;base64,") or target[1:] in ids
        text = "".join((element.text or "", *element.attrib.values()))
        assert element.tag != "style" or ("url(" not in text and "@import" not in text)


def kept(result: Any) -> tuple[ElementTree.Element, dict[str, Any], str]:
    """The page's tree, the entry of the engine in the report beside it, and the page."""
    report, page = result.keep()
    assert page == report.with_suffix(".html")
    text = page.read_text(encoding="utf-8")
    root = parsed(text)
    check_needs_nothing(root)
    return root, json.loads(report.read_text("utf-8"))["engines"][0], text


def mixed(picture: Path) -> list[Given]:
    """Two questions: one is right 20 times of 20, the other loses 3 finds of 10."""
    good = [Given((picture,), "colour", "yes", "yes", "Yes.")] * 20
    bad = [Given((picture,), "size", "yes", "yes", "yes", probability=0.5)] * 7
    lost = [Given((picture,), "size", "yes", "yes", "no", probability=0.999)] * 3
    return [*good, *bad, *lost]


def test_command_writes_a_page_that_is_the_reports(
    copied: Path, questions: Path, miniature: Path
) -> None:
    command = ("verify", "accuracy", copied, "--source", miniature, "--dataset", questions)
    done = call(*command, "--json")
    told = json.loads(done.stdout)
    page = Path(told["page"])
    assert page == Path(told["report"]).with_suffix(".html")
    root = parsed(page.read_text("utf-8"))
    check_needs_nothing(root)
    metas = {meta.get("name"): meta.get("content") for meta in root.iter("meta")}
    assert metas["vlmc-identity"] == read_manifest(copied).identity == told["identity"]
    assert metas["vlmc-dataset"] == told["dataset"]["digest"]
    (entry,) = told["engines"]
    rows = tables(root)
    for shown, verdict in zip(rows["verdict"][1:], entry["verdicts"], strict=True):
        assert shown[0] == verdict["name"] and shown[-1] == str(verdict["n"])
        assert shown[1].startswith("passed")
        assert verdict["value"] is None or float(shown[2]) == pytest.approx(verdict["value"])
    divergence = entry["divergence"]["first_token"]
    assert rows["divergence in nats"][1][1] == f"{divergence['mean']:.5f}"
    assert {row[0] for row in rows["question"][1:]} == {"presence", "other"}
    margins = entry["histograms"]["first_margin"]["counts"]
    assert sum(margins["agreeing"]) == 6 and sum(margins["disagreeing"]) == 0
    assert list(copied.glob("reports/.*")) == [], "no temporary file is left"
    assert call("verify", "integrity", copied).exit_code == 0
    assert json.loads(call("inspect", copied, "--json").stdout)["accuracy"] == "passed"
    shown = call(*command, "--limit", 5)
    assert f"page        {copied / 'reports'}" in shown.stdout


def test_values_are_those_of_the_json(artifact: Path, picture: Path, tmp_path: Path) -> None:
    copied = shutil.copytree(artifact, tmp_path / "copied")
    root, entry, text = kept(
        verified(
            copied,
            mixed(picture),
            cosines=(0.9999998, 0.998, -1.0),
            divergences=[*[1e-9] * 27, 0.5, 0.5, 2.0],
            explained="because",
        )
    )
    rows = tables(root)
    assert [row[:2] for row in rows["question"][1:]] == [
        ["size", "recall and agreement"],
        ["colour", "-"],
    ]
    size, found = rows["question"][1], entry["answers"]["questions"]["size"]
    assert size[2] == "10"
    assert size[3].startswith(f"{found['agreement']['value']:.4f} [")
    assert size[4].startswith("1.0000") and size[5].startswith("0.7000")
    assert (size[6], size[7]) == ("0.3000", f"{found['recall_drop']['mcnemar_p']:.4f}")
    assert size[8].startswith("1.0000") and size[9] == f"{2 * 0.7 / 1.7:.4f}"
    marked = [row for row in root.iter("tr") if row.get("class") == "bad"]
    assert "min_feature_cosine" in "".join(marked[0].itertext())
    assert rows["drop from source to artifact"][1][2:4] == ["3", "0"]

    values = entry["histograms"]
    distance = values["feature_distance"]
    assert distance["edges"][0] == 0 and distance["edges"][-1] == 2
    classes = [i for i, count in enumerate(distance["counts"]["tiles"]) if count]
    assert [distance["edges"][i] for i in classes] == [1e-7, 1e-3, 1.0]
    assert values["first_probability"]["edges"][-1] == 1
    assert sum(values["first_probability"]["counts"]["disagreeing"]) == 3
    # Half as likely: ln 2 = 0.69 nats.
    assert values["first_margin"]["counts"]["agreeing"][2] == 27
    assert values["first_divergence"]["counts"]["disagreeing"][-3:] == [0, 2, 1]
    titles = {element.text for element in root.iter(f"{SVG}text")}
    assert {
        "1 - cosine of features, tiles: 3",
        "first-token divergence, nats, disagreeing: 3",
    } <= titles

    confusion = entry["confusion"]
    assert list(confusion) == ["size", "colour"], "the worst first"
    assert confusion["size"]["labels"] == ["yes", "no"]
    assert confusion["size"]["reference_artifact"] == [[7, 3], [0, 0]]
    assert confusion["size"]["label_reference"] == [[10, 0], [0, 0]]
    assert rows["Artifact's answer by source's"] == [
        ["source \\ artifact", "yes", "no"],
        ["yes", "7", "3"],
    ]
    cases = [*root.iter("section")]
    assert len(cases) == 3
    assert "first token's probability 0.999" in "".join(cases[0].itertext())
    assert "arises at the language: because" in "".join(cases[0].itertext())
    assert text.count("data:image/jpeg") == 1, "the same picture is in the page once"


def test_pictures_have_both_grids(artifact: Path, tmp_path: Path) -> None:
    """A picture turned by its EXIF data, of an artifact with other tiles and EXIF rules."""
    copied = shutil.copytree(artifact, tmp_path / "copied")
    manifest = read_manifest(copied)
    rules = replace(manifest.image, tiles=TileRule("native", max=2), exif="apply")
    seal(copied, replace(manifest, image=rules))
    path = tmp_path / "turned.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = np.zeros((480, 640, 3), np.uint8)
    pixels[:, :320] = 255
    Image.fromarray(pixels).save(path, exif=exif)
    root, _, _ = kept(verified(copied, [Given((path,), "", None, "a", "b")]))
    captions = [element.text for element in root.iter("figcaption")]
    assert captions == [
        "source: 4 × 3 tiles and the whole image, 13 in all",
        "artifact: 1 × 2 tiles, 2 in all",
    ]
    sizes = []
    for image in root.iter(f"{SVG}image"):
        data = base64.b64decode(image.attrib["href"].partition(",")[2])
        sizes.append(Image.open(io.BytesIO(data)).size)
    assert sizes == [(320, 240), (240, 320)], "the artifact's picture is turned"
    borders = [
        [path.attrib["d"] for path in figure.iter(f"{SVG}path")] for figure in root.iter("figure")
    ]
    assert borders[0][0].startswith("M80.0 0V240M160.0 0V240M240.0 0V240M0 80.0H320M0 160.0H320")
    assert borders[1][0].startswith("M0 160.0H240M")


def test_pictures_are_bounded(
    artifact: Path, picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied = shutil.copytree(artifact, tmp_path / "copied")
    others = [Path(shutil.copy(picture, tmp_path / f"{number}.png")) for number in range(4)]
    noise = np.random.default_rng(0).integers(0, 256, (448, 448, 3), np.uint8)
    for path in others:
        Image.fromarray(noise).save(path)
    given = [Given((path,), "q", None, "a", "b") for path in (*others, tmp_path / "gone.png")]
    given += [Given((picture,) * 7, "q", None, "a", "b")] * 30
    monkeypatch.setattr(grid_images, "MAX_BYTES", 120_000)
    root, entry, text = kept(verified(copied, given))
    cases = [*root.iter("section")]
    assert len(cases) == len(entry["disagreements"]) == 20
    assert len(text) < 300_000
    assert "Not shown" in "".join(cases[4].itertext())
    assert "3 more images are not shown." in "".join(cases[-1].itertext())


@pytest.fixture
def hostile(artifact: Path, picture: Path, tmp_path: Path) -> Any:
    """200 labels, all hostile texts in every place, and pictures of extreme shapes."""
    copied = shutil.copytree(artifact, tmp_path / "hostile")
    thin = tmp_path / "<thin> & 'wide' שלום.png"
    Image.fromarray(np.zeros((2, 4000, 3), np.uint8)).save(thin)
    given = [
        Given((thin, picture), text, text, text, f"{text}!", (text,), prompt=text or "?")
        for text in HOSTILE
    ]
    given += [
        Given((picture,), "many", f"label {n % 200}", f"label {n % 200}", f"label {n % 190}")
        for n in range(400)
    ]
    rungs = tuple(Rung(text, None, 0.5, 12.25, 0.5, 10) for text in HOSTILE)
    points = tuple(
        MeasuredPoint(text, 256.0 * n, 0.9, 100.0 / n, 1.0, 1.0, 10)
        for n, text in enumerate(HOSTILE, 1)
    )
    return verified(
        copied,
        given,
        explained=HOSTILE[0],
        ladder=rungs,
        sweep=points,
        dataset=HOSTILE[1],
    )


def test_hostile_texts_are_only_shown(hostile: Any) -> None:
    root, entry, text = kept(hostile)
    names = {row[0] for row in tables(root)["question"][1:]}
    assert HOSTILE[0] in names and shorten(HOSTILE[2], 240) in names
    assert "a\ufffdb\ufffdc\ufffdd\ufffde" in names
    assert "(no question id)" in names
    labels = entry["confusion"]["many"]["labels"]
    assert len(labels) == 9 and labels[-1] is None
    counts = entry["confusion"]["many"]["reference_artifact"]
    assert sum(map(sum, counts)) == 400
    assert entry["confusion"]["a\x00b\x1bc\ud800d\uffffe"]["labels"], "JSON keeps every character"
    assert "<script" not in text and len(text) < 2_000_000


def test_page_is_readable_in_a_browser(
    artifact: Path, picture: Path, hostile: Any, tmp_path: Path
) -> None:
    copied = shutil.copytree(artifact, tmp_path / "copied")
    pages = {
        "mixed": kept(verified(copied, mixed(picture), cosines=(0.999,), explained="tiles"))[2],
        "hostile": kept(hostile)[2],
    }
    check_readable(pages, tmp_path)
