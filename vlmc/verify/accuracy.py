"""The accuracy of an artifact: three levels against the source."""

from __future__ import annotations

from contextlib import closing
from itertools import repeat
from pathlib import Path

from vlmc.errors import NotFiniteError, UsageError, VlmcError
from vlmc.image.decode import decode
from vlmc.image.preprocess import read_tiles
from vlmc.image.resize import Resampler
from vlmc.image.source import Pixels
from vlmc.image.tiles import choose_grid
from vlmc.progress.channel import report
from vlmc.progress.events import Progress
from vlmc.runtime.engines.onnxruntime_engine import BATCH_TILES
from vlmc.runtime.model import Model
from vlmc.verify.accuracy_targets import AccuracyTargets
from vlmc.verify.answers import AnswerCheck, Pair
from vlmc.verify.asking import NO_ANSWER, finite
from vlmc.verify.dataset import Dataset
from vlmc.verify.divergence import DivergenceCheck, continuations, divergences
from vlmc.verify.features import FeatureCheck, batch_counts, check_features
from vlmc.verify.gate import Checked, Thresholds
from vlmc.verify.pixels import PixelCheck, grid_of
from vlmc.verify.reference import Reference
from vlmc.verify.source import MAX_NEW_TOKENS


def check_model(
    model: Model,
    targets: AccuracyTargets,
    reference: Reference,
    dataset: Dataset,
) -> Checked:
    """Measure the three levels of a loaded artifact.

    Raises:
        AccuracyError: the features have another shape than the source's.
        VlmcError: an image or a prompt is not usable.
    """
    accuracy = targets.accuracy
    pixels = _check_pixels(model, targets, reference, dataset)
    features = _check_features(model, reference)
    answers, divergence = _check_answers(model, targets, reference, dataset)
    return Checked(
        pixels=pixels,
        features=features,
        answers=answers,
        divergence=divergence,
        thresholds=Thresholds(
            min_feature_cosine=model.chosen.min_feature_cosine,
            min_answer_agreement=accuracy.min_answer_agreement,
            max_recall_drop=accuracy.max_recall_drop,
        ),
    )


def check_covered(reference: Reference, dataset: Dataset) -> None:
    """Refuse a reference that was made on other questions.

    Raises:
        UsageError: a question or an image is not in it; names the line.
    """
    for question in dataset.questions:
        if question.key not in reference.answers:
            raise UsageError(
                f"{dataset.path}:{question.line}: the reference has no answer to this prompt on "
                "this image's content. Create the reference again with `vlmc verify reference` and "
                "a recipe whose accuracy.dataset is this file."
            )


def _check_pixels(
    model: Model,
    targets: AccuracyTargets,
    reference: Reference,
    dataset: Dataset,
) -> PixelCheck:
    check, published = PixelCheck(), model.artifact.manifest.image.published
    images = dataset.images
    for done, (digest, path) in enumerate(images.items(), 1):
        found = model.prepare_image(path).tiles

        def tiles_by(resampler: Resampler, path: Path = path) -> Pixels:
            return read_tiles(
                path,
                targets.rule,
                resampler,
                exif=targets.exif,
                high_bit_depth=targets.high_bit_depth,
            ).tiles

        check.compare(str(path), found, tiles_by, targets.rule, targets.resampler)
        expected = reference.grids[digest]
        count = choose_grid(expected.width, expected.height, published).tiles
        if count != expected.tiles:
            check.moved[str(path)] = (
                f"{count} tiles by the artifact's published rule, {expected.tiles} by the source's"
            )
        elif reference.from_file:
            as_source = grid_of(decode(path), published)
            check.decoded_otherwise += as_source.sha256 != expected.sha256
        report(Progress("images compared", done, len(images)))
    return check


def _check_features(model: Model, reference: Reference) -> FeatureCheck:
    engine = model.vision
    counts = batch_counts(engine.profiles, BATCH_TILES)
    return check_features(engine, reference.tiles, reference.places, reference.features, counts)


def _check_answers(
    model: Model,
    targets: AccuracyTargets,
    reference: Reference,
    dataset: Dataset,
) -> tuple[AnswerCheck, DivergenceCheck | None]:
    """Ask every question, and beside it for the probabilities along the source's answer."""
    questions, pairs = dataset.questions, []
    positions: list[tuple[float, ...]] = []
    sources = [reference.answers[question.key] for question in questions]
    comparable = all(source.top for source in sources)
    requests = (question.request for question in questions)
    followed = (
        (question.request, continuations(source))
        for question, source in zip(questions, sources, strict=True)
    )
    scored = model.try_score_tokens(followed) if comparable else repeat({}, len(questions))
    with closing(model.try_stream(requests, max_new_tokens=MAX_NEW_TOKENS)) as answers:
        for question, source, answer, scores in zip(
            questions, sources, answers, scored, strict=True
        ):
            given = finite(answer)
            if isinstance(scores, NotFiniteError):
                given = None
            elif isinstance(scores, VlmcError):
                raise scores
            elif comparable and given is not None:
                positions.append(divergences(source, scores))
            pairs.append(Pair(question, source, NO_ANSWER if given is None else given.text))
            report(Progress("answers compared", len(pairs), len(questions)))
    check = AnswerCheck(tuple(pairs), targets.accuracy.normalize)
    return check, DivergenceCheck(tuple(positions)) if positions else None
