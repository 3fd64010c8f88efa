"""Results of an OpenAI batch, a line each."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from vlmc.errors import ImageError, PromptError, UsageError, VlmcError
from vlmc.files.units import shorten
from vlmc.jobs.input.questions import Question
from vlmc.jobs.input.rows import BatchRequest, result_id
from vlmc.jobs.output.table_lines import MAX_ERROR_CHARACTERS
from vlmc.runtime.requests.answer import Answer
from vlmc.runtime.requests.scores import Scored

# Errors of the request itself; others are the machine's.
_BAD_REQUEST = (ImageError, PromptError, UsageError)


class TokenModel(Protocol):
    """A model that says what its tokens are."""

    def token_texts(self, token_ids: Sequence[int]) -> list[str]: ...


class BatchLines:
    """Makes the result of a question of a batch and its outcome."""

    columns: tuple[str, ...] = ()

    def __init__(self, model: TokenModel) -> None:
        self._model = model

    def line(self, question: Question, outcome: Answer | Scored | VlmcError) -> dict[str, Any]:
        """The result, with a completion or with an error."""
        batch, name = question.row.batch, result_id(question.line)
        if batch is None or isinstance(outcome, Scored):
            raise TypeError(f"{outcome!r} is not an outcome of a batch's request")
        failed = isinstance(outcome, VlmcError)
        bad = isinstance(outcome, _BAD_REQUEST)
        return {
            "id": name,
            "custom_id": batch.custom_id,
            "response": {
                "status_code": 200 if not failed else 400 if bad else 500,
                "request_id": name,
                "body": {
                    "error": {
                        "message": shorten(str(outcome), MAX_ERROR_CHARACTERS),
                        "type": "invalid_request_error" if bad else "server_error",
                        "param": None,
                        "code": None,
                    }
                }
                if isinstance(outcome, VlmcError)
                else self._completion(name, batch, outcome),
            },
            "error": None,
        }

    def _completion(self, name: str, batch: BatchRequest, answer: Answer) -> dict[str, Any]:
        prompt, new = len(answer.prompt_token_ids), len(answer.token_ids)
        return {
            "id": f"chatcmpl-{name}",
            "object": "chat.completion",
            "created": int(time.time()),
            "model": batch.model,
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": answer.text, "refusal": None},
                    "logprobs": self._logprobs(answer) if batch.logprobs else None,
                    "finish_reason": answer.finish_reason,
                }
            ],
            "usage": {
                "prompt_tokens": prompt,
                "completion_tokens": new,
                "total_tokens": prompt + new,
                "prompt_tokens_details": {"cached_tokens": answer.prompt_tokens_reused},
            },
        }

    def _logprobs(self, answer: Answer) -> Mapping[str, Any]:
        content = self._tokens(answer.token_ids, answer.token_logprobs)
        for place, token in enumerate(content):
            top = answer.top_logprobs[place] if answer.top_logprobs else ((), ())
            token["top_logprobs"] = self._tokens(*top)
        return {"content": content, "refusal": None}

    def _tokens(self, ids: Sequence[int], logprobs: Sequence[float]) -> list[dict[str, Any]]:
        return [
            {"token": text, "logprob": logprob, "bytes": list(text.encode("utf-8", "replace"))}
            for text, logprob in zip(self._model.token_texts(ids), logprobs, strict=True)
        ]
