"""OpenAI batches in, and their results out."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from tests.jobs.fake import FakeModel, write_images
from tests.jobs.input.write import jpeg, write_jsonl
from tests.jobs.small_job import run
from vlmc.errors import UsageError
from vlmc.jobs.input.open import open_input
from vlmc.jobs.input.openai_batch import BatchRows
from vlmc.runtime.scheduler.sequence import Sampling

DATA = "data:image/jpeg;base64," + base64.b64encode(jpeg()).decode()


def request(custom_id: str, *content: Any, **body: Any) -> dict[str, Any]:
    """A line; texts are text parts, and URLs in lists are images."""
    parts = [
        {"type": "text", "text": part}
        if isinstance(part, str)
        else {"type": "image_url", "image_url": {"url": part[0]}}
        for part in content
    ]
    messages = [{"role": "user", "content": parts}]
    body = {"model": "internvl2", "messages": messages, **body}
    return {"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions", "body": body}


def results(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.open()]


def test_requests_become_rows(tmp_path: Path) -> None:
    plain = request("e", "Why?", max_tokens=7)
    plain["body"]["messages"][0]["content"] = "Why?"
    path = write_jsonl(
        tmp_path / "batch.jsonl",
        request("a", ["images/000.jpg"], "A door?"),
        request("b", "Before", [DATA], "after", max_completion_tokens=2, temperature=0.5, seed=3),
        request("c", "<image> or <image>?", ["1.jpg"], ["2.jpg"], top_p=0.9, n=1, user="me"),
        request("d", ["memory://pictures/a.jpg"], "?", logprobs=True),
        plain,
    )
    rows = open_input(str(path))
    assert isinstance(rows, BatchRows) and len(rows) == 5 and rows.prompted
    assert rows.image_counts() == {1, 2}
    a, b, c, d, e = rows.read()
    assert (a.image, a.prompt, a.question) == (tmp_path / "images/000.jpg", "<image>\nA door?", "a")
    assert (b.image, b.prompt) == (DATA, "Before\n<image>\nafter")
    assert (c.image, c.prompt) == ([tmp_path / "1.jpg", tmp_path / "2.jpg"], "<image> or <image>?")
    assert (e.image, e.prompt) == (None, "Why?")
    works = [row.batch.sampling_up_to(5) for row in (a, b, c, e) if row.batch is not None]
    assert works == [Sampling(5), Sampling(2, 0.5, seed=3), Sampling(5, top_p=0.9), Sampling(7)]
    assert d.batch is not None and d.batch.logprobs


def test_results_have_openais_form(tmp_path: Path) -> None:
    write_images(tmp_path / "images", 3, damaged=[1])
    path = write_jsonl(
        tmp_path / "batch.jsonl",
        request("a", ["images/000.jpg"], "A door?", logprobs=True),
        request("b", ["images/001.jpg"], "A door?"),
        request("c", ["https://host/a.jpg"], "A door?"),
        request("d", ["images/002.jpg"], "A lamp?", max_tokens=1),
    )
    out = tmp_path / "results.jsonl"
    summary = run(path, out, [])
    assert (summary.answers, summary.errors) == (2, 2)
    assert "is a URL" in summary.reasons[0][0] + summary.reasons[1][0]
    lines = results(out)
    assert [line["custom_id"] for line in lines] == ["a", "b", "c", "d"]
    assert len({line["id"] for line in lines}) == 4
    good, damaged, url, short = (line["response"] for line in lines)
    body = good["body"]
    assert good["status_code"] == 200 and body["object"] == "chat.completion"
    assert body["model"] == "internvl2" and isinstance(body["created"], int)
    (choice,) = body["choices"]
    assert choice["message"]["role"] == "assistant" and choice["finish_reason"] == "stop"
    content = choice["logprobs"]["content"]
    assert body["usage"]["completion_tokens"] == len(content)
    assert body["usage"]["total_tokens"] == 3 + len(content)
    assert body["usage"]["prompt_tokens_details"] == {"cached_tokens": 2}
    for token in content:
        assert bytes(token["bytes"]).decode() == token["token"] and token["top_logprobs"] == []
    assert short["body"]["choices"][0]["logprobs"] is None
    assert len(short["body"]["choices"][0]["message"]["content"]) == 4
    for failed in (damaged, url):
        assert failed["status_code"] == 400
        assert failed["body"]["error"]["type"] == "invalid_request_error"
    assert all(line["error"] is None for line in lines)


def test_a_batch_resumes_and_retries(tmp_path: Path) -> None:
    write_images(tmp_path / "images", 6, damaged=[2])
    path = write_jsonl(
        tmp_path / "batch.jsonl",
        *(request(f"r{number}", [f"images/{number:03}.jpg"], "?") for number in range(6)),
    )
    out = tmp_path / "results.jsonl"
    run(path, out, [])
    whole = out.read_bytes().splitlines(keepends=True)
    out.write_bytes(b"".join(whole[:3]) + whole[3][:50])
    model = FakeModel()
    assert run(path, out, [], model).resumed == 3 and len(model.asked) == 3
    write_images(tmp_path / "images", 6)
    assert run(path, out, [], retry_errors=True).errors == 0
    assert [line["custom_id"] for line in results(out)] == [f"r{number}" for number in range(6)]
    with pytest.raises(UsageError, match="max new tokens: was 5, is 9"):
        run(path, out, [], max_new_tokens=9)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"tools": [{"type": "function"}]}, r"tools is \[.*vlmc has only \[\]"),
        ({"n": 2}, "n is 2"),
        ({"stream": True}, "stream is True"),
        ({"top_logprobs": 5}, "top_logprobs needs logprobs to be true"),
        ({"top_logprobs": 21, "logprobs": True}, "a whole number from 0 to 20"),
        ({"response_format": {"type": "json_object"}}, "response_format is"),
        ({"reasoning_effort": "low"}, "cannot honour 'reasoning_effort'"),
        ({"temperature": -1}, "temperature -1"),
        ({"temperature": "hot"}, "temperature is 'hot'; it must be a number"),
        ({"max_tokens": 0}, "max_tokens is 0"),
        ({"max_tokens": 1, "max_completion_tokens": 2}, "differ"),
        ({"logprobs": 1}, "it must be true or false"),
        ({"messages": []}, "a list of one user message"),
        ({"messages": [{"role": "system", "content": "x"}]}, "build with --set model.system_messa"),
        ({"messages": [{"role": "user", "content": "x"}] * 2}, "roles 'user', 'user'"),
        (
            {"messages": [{"role": "user", "content": [{"type": "file"}]}]},
            "type text and image_url",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
            "image_url must be",
        ),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(
    body: dict[str, Any], said: str, tmp_path: Path
) -> None:
    path = write_jsonl(tmp_path / "batch.jsonl", request("a", "x"), request("b", "?", **body))
    with pytest.raises(UsageError, match=rf"batch\.jsonl:2: .*{said}"):
        open_input(str(path))


def test_other_refusals(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "batch.jsonl", request("a", "x"), request("a", "y"))
    with pytest.raises(UsageError, match="the custom_id 'a' is given twice"):
        open_input(str(path))
    detail = request("a", "x", ["a.jpg"])
    detail["body"]["messages"][0]["content"][1]["image_url"]["detail"] = "high"
    other = request("b", "x") | {"url": "/v1/embeddings"}
    write_jsonl(path, detail, other, {"custom_id": 1, "body": {}}, {"custom_id": "c", "body": 3})
    with pytest.raises(UsageError) as found:
        open_input(str(path))
    for said in ("detail is 'high'", "vlmc answers POST", "must be a text", "must be an object"):
        assert said in str(found.value)
    write_jsonl(path, request("a", "x"))
    for options, out in (({"choices": ["a", "b"]}, "o.jsonl"), ({"confidence": True}, "o.jsonl")):
        with pytest.raises(UsageError, match="is an OpenAI batch"):
            run(path, tmp_path / out, [], **options)
    with pytest.raises(UsageError, match=r"are JSON lines; end the output in \.jsonl"):
        run(path, tmp_path / "o.parquet", [])
