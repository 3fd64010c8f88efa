"""`vlmc run` on a real model: batches, shards, remote files, questions, audits, and stops."""

from __future__ import annotations

import base64
import json
import shutil
import signal
from collections.abc import Generator, Iterable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from tests.command import call
from tests.jobs.input.shards import write_shard
from tests.jobs.input.write import jpeg, write_jsonl
from vlmc.artifact.accuracy_status import write_report
from vlmc.artifact.manifest import read_manifest
from vlmc.runtime.model import Model

SMALL = ("--tiles", "single", "--device", "cpu")


def lines_of(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.open()]


def test_questions_with_choices_and_an_audit_of_all(artifact: Path, tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "s.tar", {f"{row}.jpg": jpeg(20 + row) for row in range(3)})
    prompts = write_jsonl(
        tmp_path / "prompts.jsonl",
        {"prompt": "A door?", "question": "door", "choices": ["yes", "no"]},
        {"prompt": "A lamp?", "question": "lamp"},
    )
    out = tmp_path / "answers.jsonl"
    command = ["run", artifact, shard, "--prompts", prompts, *SMALL, "-o", out]
    result = call(*command, "--audit", "1", "--json")
    assert result.exit_code == 0, result.stderr
    audit = json.loads(result.stdout)["audit"]
    assert (audit["checked"], audit["agreed"], audit["disagreements"]) == (6, 6, [])
    lines = lines_of(out)
    assert [line["scores"] is None for line in lines] == [False, True] * 3
    assert all(line["answer"] in line["scores"] for line in lines[::2])
    scored = call(*command[:-1], tmp_path / "p.jsonl", "--score", "probability")
    assert scored.exit_code == 0
    assert sum(lines_of(tmp_path / "p.jsonl")[0]["scores"].values()) == pytest.approx(1)
    write_jsonl(prompts, {"prompt": "A door?", "choices": ["yes", "no"]})
    refused = call(*command, "--max-new-tokens", 3)
    assert refused.exit_code == 2 and "have choices, which are scored whole" in refused.stderr


def test_a_resumed_job_audits_what_it_answers(artifact: Path, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(jpeg())
    out = tmp_path / "answers.jsonl"
    command = ["run", artifact, tmp_path / "a.jpg", "--prompt", "A door?", *SMALL, "-o", out]
    assert call(*command).exit_code == 0
    assert "audit: 0 of 0 answers" in call(*command, "--audit", "0.5").stderr


def test_an_audit_tells_what_differs(
    artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.jpg").write_bytes(jpeg())
    right = Model.reference_answer

    def wrong(model: Model, request: Any, work: Any) -> Any:
        return right(model, (request[0], "Another question, so that it differs?"), work)

    monkeypatch.setattr(Model, "reference_answer", wrong)
    command = ["run", artifact, tmp_path / "a.jpg", "--prompt", "A door?", *SMALL]
    result = call(*command, "-o", tmp_path / "o.jsonl", "--audit", "1", "--max-new-tokens", 8)
    assert (
        "audit: 0 of 1 answer are the same by the reference path\n  row 0, A door?: "
        in result.stderr
    )


def test_a_batch_of_openais_form(artifact: Path, tmp_path: Path) -> None:
    url = "data:image/jpeg;base64," + base64.b64encode(jpeg()).decode()
    content = [
        {"type": "text", "text": "A door?"},
        {"type": "image_url", "image_url": {"url": url}},
    ]
    body = {"model": "m", "messages": [{"role": "user", "content": content}]}
    bodies = [
        body | {"max_tokens": 3, "logprobs": True, "top_logprobs": 2},
        body | {"max_tokens": 3, "temperature": 2.0, "top_p": 0.9, "seed": 5},
        body | {"messages": [{"role": "user", "content": "A word?"}]},
    ]
    batch = write_jsonl(
        tmp_path / "batch.jsonl",
        *({"custom_id": f"r{n}", "body": body} for n, body in enumerate(bodies)),
    )
    out = tmp_path / "results.jsonl"
    result = call("run", artifact, batch, *SMALL, "-o", out, "--max-new-tokens", 2)
    assert result.exit_code == 0, result.stderr
    found = [line["response"]["body"] for line in lines_of(out)]
    for body, most in zip(found, (3, 3, 2), strict=True):
        assert body["usage"]["completion_tokens"] <= most
    for body in found:
        stopped = body["choices"][0]["finish_reason"] == "stop"
        assert stopped or body["usage"]["completion_tokens"] in (2, 3)
    tokens = found[0]["choices"][0]["logprobs"]["content"]
    assert len(tokens) == found[0]["usage"]["completion_tokens"]
    for token in tokens:
        best, second = token["top_logprobs"]
        assert (best["token"], best["bytes"]) == (token["token"], token["bytes"])
        assert best["logprob"] == pytest.approx(token["logprob"], abs=1e-5)
        assert second["logprob"] <= best["logprob"] <= 0
    streamed = call("run", artifact, batch, *SMALL, "-o", "-", "--max-new-tokens", 2)
    texts = [
        json.loads(line)["response"]["body"]["choices"][0]["message"]
        for line in streamed.stdout.splitlines()
    ]
    assert texts == [body["choices"][0]["message"] for body in found]


def test_remote_in_and_out(artifact: Path, tmp_path: Path) -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe_file(f"/{tmp_path.name}/p/a.jpg", jpeg())
    out = f"memory://{tmp_path.name}/answers.parquet"
    command = ["run", artifact, f"memory://{tmp_path.name}/p", "--prompt", "A door?", *SMALL]
    result = call(*command, "-o", out)
    assert (result.exit_code, result.stdout.strip()) == (0, out), result.stderr
    assert memory.cat_file(f"/{tmp_path.name}/answers.parquet")[:4] == b"PAR1"
    again = call(*command, "-o", out)
    assert "1 of them from an earlier run" in again.stderr
    memory.rm(f"/{tmp_path.name}", recursive=True)


@pytest.mark.parametrize("to", ["answers.jsonl", "-"])
def test_an_interrupt_says_how_to_go_on(
    to: str, artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.jpg").write_bytes(jpeg())
    rows = [{"image": "a.jpg", "prompt": f"Question {row}?"} for row in range(20)]
    source = write_jsonl(tmp_path / "rows.jsonl", *rows)
    plain = Model.try_each

    def interrupted(model: Model, requests: Iterable[Any]) -> Generator[Any, None, None]:
        def counted() -> Iterator[Any]:
            for place, request in enumerate(requests):
                if place == 4:
                    signal.raise_signal(signal.SIGINT)
                yield request

        return plain(model, counted())

    out = to if to == "-" else tmp_path / to
    command = ["run", artifact, source, *SMALL, "--max-new-tokens", 1, "-o", out]
    with monkeypatch.context() as patched:
        patched.setattr(Model, "try_each", interrupted)
        result = call(*command)
    assert result.exit_code == 1
    said = "the job stopped before its end, since it was interrupted. 15 lines remain"
    assert said in result.stderr
    if to == "-":
        assert len(result.stdout.splitlines()) == 5 and "cannot be resumed" in result.stderr
        return
    assert "run the same command again to resume" in result.stderr
    late = call(*command, "--deadline", "0.01s", "--json")
    assert late.exit_code == 1
    summary = json.loads(late.stdout)
    assert (summary["stopped"], summary["remaining"]) == ("the deadline of 0.0 s has passed", 15)
    assert call(*command).exit_code == 0 and len(lines_of(tmp_path / to)) == 20


def test_stopped_by_errors(artifact: Path, tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "rows.jsonl", *({"image": "none.jpg"} for _ in range(400)))
    command = ["run", artifact, source, "--prompt", "A door?", *SMALL, "-o", tmp_path / "o.jsonl"]
    result = call(*command, "--max-errors", 1)
    assert result.exit_code == 1 and "since 1 row ended in an error (--max-errors)" in result.stderr
    refused = call(*command, "--deadline", "soon")
    assert refused.exit_code == 2 and "such as 90s, 30m or 1h30m" in refused.stderr


def test_an_output_that_cannot_be_written_is_refused_first(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(jpeg())
    command = ["run", tmp_path / "none", tmp_path / "a.jpg", "--prompt", "A door?", "-o"]
    for out, said in (
        (tmp_path / "a.jpg" / "o.jsonl", "a.jpg is not a folder; choose another output"),
        ("file:///proc/none/o.jsonl", "cannot be written"),
    ):
        refused = call(*command, out)
        assert refused.exit_code == 2 and said in refused.stderr


def test_questions_that_were_not_verified_are_named(artifact: Path, tmp_path: Path) -> None:
    copied = shutil.copytree(artifact, tmp_path / "artifact")
    manifest = read_manifest(copied)
    (tmp_path / "a.jpg").write_bytes(jpeg())
    source = write_jsonl(tmp_path / "rows.jsonl", {"image": "a.jpg", "prompt": "A lamp?"})
    command = ["run", copied, "--device", "cpu", "-o", tmp_path / "o.jsonl"]
    asked = [*command, tmp_path / "a.jpg", "--prompt", "A door?", "--prompt", "A lamp?"]
    rows = [*command[:-1], tmp_path / "p.jsonl", source]
    assert "warning" not in call(*asked).stderr
    for names, said, of_rows in (
        (["A door?", ""], "warning: 1 of 2 questions were not in the artifact's", 1),
        (["A door?", "A lamp?"], None, None),
        ([""], "warning: the questions of the artifact's verification have no ids", 1),
    ):
        entry = {"engine": "onnxruntime", "target": "cpu", "status": "passed"}
        answers: dict[str, Any] = {"questions": {name: {} for name in names}}
        values = {"identity": manifest.identity, "dataset": {"limit": None}}
        write_report(copied, "x", values | {"engines": [entry | {"answers": answers}]})
        found = call(*asked).stderr
        assert (said in found) if said else ("warning" not in found)
        assert ("warning" in call(*rows).stderr) == (of_rows is not None)
