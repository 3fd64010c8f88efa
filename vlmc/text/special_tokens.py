"""Special and added tokens, as a checkpoint's tokenizer files declare them.

The rules are those of the slow tokenizers of transformers 4.37, which the released models were
trained and are served with: `added_tokens_decoder` in tokenizer_config.json is authoritative;
special_tokens_map.json, added_tokens.json and tokenizer.json count only in its absence.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlmc.errors import TokenizerError
from vlmc.text.json_file import read_flag, read_json_object

CONFIG_FILE = "tokenizer_config.json"
SPECIAL_TOKENS_FILE = "special_tokens_map.json"
ADDED_TOKENS_FILE = "added_tokens.json"
FAST_FILE = "tokenizer.json"
_ID_DIGITS = 9  # no vocabulary has a thousand million tokens
# In this order special tokens that the vocabulary lacks receive their ids.
ROLES = (
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
)
ADDITIONAL = "additional_special_tokens"
# What transformers 5 calls them; 4.5x has an object of roles and tokens there.
EXTRA = "extra_special_tokens"


@dataclass(frozen=True, slots=True)
class AddedToken:
    """A token matched literally in the text; `lstrip` and `rstrip` eat whitespace beside it."""

    content: str
    lstrip: bool = False
    rstrip: bool = False
    normalized: bool = False
    special: bool = True


@dataclass(frozen=True, slots=True)
class SpecialTokens:
    """Added tokens by id, and which token plays which role. `roles` holds no absent role."""

    added: Mapping[int, AddedToken]
    roles: Mapping[str, AddedToken]
    additional: tuple[AddedToken, ...]

    def role(self, name: str) -> str | None:
        """The text of the token in a role such as `bos_token`."""
        token = self.roles.get(name)
        return None if token is None else token.content

    @property
    def special(self) -> tuple[AddedToken, ...]:
        """`all_special_tokens`: those with a role, then the additional ones, each once."""
        by_role = [self.roles[name] for name in ROLES if name in self.roles]
        unique: dict[str, AddedToken] = {}
        for token in [*by_role, *self.additional]:
            unique.setdefault(token.content, token)
        return tuple(unique.values())


def read_special_tokens(
    folder: Path, config: Mapping[str, Any], defaults: Mapping[str, str]
) -> SpecialTokens:
    """Reads the tokens beside `config`, which is tokenizer_config.json of `folder`.

    `defaults` are the tokenizer class's own roles, for keys that the files leave out.
    Raises TokenizerError for entries of an unknown shape.
    """
    path = folder / CONFIG_FILE
    settings: dict[str, Any] = {**defaults, **config}
    if "added_tokens_decoder" in config:
        added = _read_decoder(config["added_tokens_decoder"], path)
    else:
        settings |= _read_special_tokens_map(folder, config)
        added = _read_legacy_added(folder, settings)
    by_content = {token.content: token for token in added.values()}

    roles: dict[str, AddedToken] = {}
    for name in ROLES:
        if settings.get(name):
            token = _read_token(settings[name], path, name)
            roles[name] = by_content.get(token.content, token)
    additional = settings.get(ADDITIONAL) or []
    extra = settings.get(EXTRA) or []
    extra = list(extra.values()) if isinstance(extra, dict) else extra
    for key, entries in ((ADDITIONAL, additional), (EXTRA, extra)):
        if not isinstance(entries, list):
            raise TokenizerError(f"{path}: {key} is not a list; copy the file again")
    additional = additional + [entry for entry in extra if entry not in additional]
    return SpecialTokens(
        added=added,
        roles=roles,
        additional=tuple(_read_token(entry, path, ADDITIONAL) for entry in additional),
    )


def _read_token(entry: Any, path: Path, key: str) -> AddedToken:
    if isinstance(entry, str):
        return AddedToken(entry)
    if not isinstance(entry, dict) or not isinstance(entry.get("content"), str):
        raise TokenizerError(
            f"{path}: {key} holds {entry!r}, which is not a token but must be a string or object "
            'with "content". Copy the file from the checkpoint again'
        )
    if not entry["content"]:
        raise TokenizerError(f"{path}: {key} holds an empty token; copy the file again")
    if read_flag(entry, "single_word", False, path):
        raise TokenizerError(
            f"{path}: the token {entry['content']!r} has single_word set, which vlmc does not "
            "support; no released InternVL2 tokenizer uses it"
        )
    special = read_flag(entry, "special", key != "added_tokens_decoder", path)
    return AddedToken(
        content=entry["content"],
        lstrip=read_flag(entry, "lstrip", False, path),
        rstrip=read_flag(entry, "rstrip", False, path),
        normalized=read_flag(entry, "normalized", not special, path),
        special=special,
    )


def _read_decoder(entries: Any, path: Path) -> dict[int, AddedToken]:
    if not isinstance(entries, dict):
        raise TokenizerError(f"{path}: added_tokens_decoder is not an object; copy the file again")
    added: dict[int, AddedToken] = {}
    for number, entry in entries.items():
        if not (number.isascii() and number.isdigit() and len(number) <= _ID_DIGITS):
            raise TokenizerError(
                f"{path}: added_tokens_decoder has the key {number[:100]!r}, not an id"
            )
        added[int(number)] = _read_token(entry, path, "added_tokens_decoder")
    return dict(sorted(added.items()))


def _read_special_tokens_map(folder: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    path = folder / SPECIAL_TOKENS_FILE
    if not path.exists():
        return {}
    settings = read_json_object(path)
    if isinstance(settings.get(ADDITIONAL), list):
        known = list(config.get(ADDITIONAL) or [])
        settings[ADDITIONAL] = known + [t for t in settings[ADDITIONAL] if t not in known]
    return settings


def _read_legacy_added(folder: Path, settings: Mapping[str, Any]) -> dict[int, AddedToken]:
    added: dict[int, AddedToken] = {}
    path = folder / ADDED_TOKENS_FILE
    if path.exists():
        declared = [settings[name] for name in ROLES if settings.get(name)]
        declared += settings.get(ADDITIONAL) or []
        special = {
            _read_token(entry, folder / SPECIAL_TOKENS_FILE, "").content for entry in declared
        }
        for content, number in read_json_object(path).items():
            if not isinstance(number, int) or isinstance(number, bool) or number < 0:
                raise TokenizerError(f"{path}: the id of {content!r} is {number!r}, not a number")
            is_special = content in special
            added[number] = AddedToken(content, normalized=not is_special, special=is_special)
    fast = folder / FAST_FILE
    if fast.exists():
        for entry in read_json_object(fast).get("added_tokens", []):
            if not isinstance(entry, dict) or not isinstance(entry.get("id"), int):
                raise TokenizerError(f"{fast}: added_tokens holds {entry!r}, which has no id")
            added[entry["id"]] = _read_token(entry, fast, "added_tokens_decoder")
    return dict(sorted(added.items()))
