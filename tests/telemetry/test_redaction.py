"""Secrets are found, and what is no secret is left alone.

The secrets are made up at run time from a fixed seed: none stands in this file.
"""

from __future__ import annotations

import random
import string
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given

from apportion.telemetry.redaction import RULES, redact, redact_json
from apportion.testing import texts

if TYPE_CHECKING:
    from collections.abc import Callable

LETTERS = string.ascii_letters
ALNUM = LETTERS + string.digits
HEX = "0123456789abcdef"
URL = ALNUM + "_-"


def pick(rng: random.Random, alphabet: str, length: int) -> str:
    return "".join(rng.choices(alphabet, k=length))


def canaries(rng: random.Random) -> dict[str, list[tuple[str, str]]]:
    """Return made-up secrets by rule, each as `(text, the part that must go)`."""

    def plain(prefix: str, alphabet: str, length: int, suffix: str = "") -> tuple[str, str]:
        secret = prefix + pick(rng, alphabet, length) + suffix
        return f"before {secret} after", secret

    def inside(before: str, secret: str, after: str = "") -> tuple[str, str]:
        return before + secret + after, secret

    mixed = "a1" + pick(rng, ALNUM, 14)
    body = "\n".join(pick(rng, ALNUM + "+/", 64) for _ in range(4))
    key = "-----BEGIN {0} KEY-----\n" + body + "\n-----END {0} KEY-----"
    name = pick(rng, string.ascii_lowercase, 8)
    return {
        "anthropic key": [plain("sk-ant-" + "api03-", URL, 93)],
        "openai key": [plain("sk-" + "proj-", URL, 80), plain("sk-", ALNUM, 48)],
        "openrouter key": [plain("sk-" + "or-v1-", HEX, 64)],
        "google api key": [plain("AI" + "za", URL, 35)],
        "google oauth secret": [plain("GOC" + "SPX-", URL, 28), plain("ya2" + "9.", URL, 60)],
        "groq key": [plain("gs" + "k_", ALNUM, 52)],
        "xai key": [plain("xa" + "i-", ALNUM, 80)],
        "perplexity key": [plain("ppl" + "x-", ALNUM, 48)],
        "replicate token": [plain("r" + "8_", ALNUM, 37)],
        "hugging face token": [plain("h" + "f_", ALNUM, 34)],
        "aws access key": [plain("AK" + "IA", string.ascii_uppercase + "234567", 16)],
        "github token": [plain("gh" + "p_", ALNUM, 36), plain("github" + "_pat_", ALNUM + "_", 82)],
        "gitlab token": [plain("gl" + "pat-", URL, 20)],
        "slack token": [plain("xo" + "xb-", ALNUM + "-", 50)],
        "slack webhook": [inside("https://hooks.slack.com/services/", f"T0{name}/B0/{pick(rng, ALNUM, 24)}")],
        "discord webhook": [inside("https://discord.com/api/webhooks/", f"12345678/{pick(rng, URL, 68)}")],
        "telegram token": [plain("123456789:" + "AA", URL, 33)],
        "stripe key": [plain("sk" + "_live_", ALNUM, 24), plain("whs" + "ec_", ALNUM, 32)],
        "square token": [plain("sq0" + "csp-", URL, 43)],
        "shopify token": [plain("shp" + "at_", HEX, 32)],
        "twilio key": [plain("S" + "K", HEX, 32)],
        "sendgrid key": [plain("S" + "G.", ALNUM, 22, "." + pick(rng, ALNUM, 43))],
        "mailgun key": [plain("ke" + "y-", HEX, 32)],
        "npm token": [plain("np" + "m_", ALNUM, 36)],
        "pypi token": [plain("py" + "pi-AgEIcHlwaS5vcmc", URL, 60)],
        "docker token": [plain("dckr" + "_pat_", URL, 27)],
        "digitalocean token": [plain("do" + "p_v1_", HEX, 64)],
        "databricks token": [plain("da" + "pi", HEX, 32)],
        "vault token": [plain("hv" + "s.", URL, 90)],
        "terraform token": [plain("", ALNUM, 14, ".atlas" + "v1." + pick(rng, ALNUM, 67))],
        "grafana token": [plain("gl" + "sa_", ALNUM, 41)],
        "new relic key": [plain("NR" + "AK-", string.ascii_uppercase + string.digits, 27)],
        "postman key": [plain("PM" + "AK-", HEX, 24, "-" + pick(rng, HEX, 34))],
        "linear key": [plain("lin" + "_api_", ALNUM, 40)],
        "notion token": [plain("nt" + "n_", ALNUM, 46), plain("secr" + "et_", ALNUM, 43)],
        "figma token": [plain("fi" + "gd_", URL, 40)],
        "supabase token": [plain("sb" + "p_", HEX, 40)],
        "age key": [plain("AGE-SECRET-" + "KEY-1", string.ascii_uppercase + string.digits, 58)],
        "azure key": [inside("AccountName=x;Account" + "Key=", pick(rng, ALNUM + "+/", 86) + "==", ";Endpoint=y")],
        "json web token": [plain("ey" + "J", ALNUM, 30, f".ey{'J'}{pick(rng, ALNUM, 60)}.{pick(rng, URL, 43)}")],
        "private key": [
            inside("key:\n", key.format("RSA PRIVATE")),
            inside("cut off:\n", key.format("EC PRIVATE").rpartition("\n")[0]),
            inside('{"k": "', key.format("PRIVATE").replace("\n", "\\n"), '"}'),
        ],
        "password": [
            inside("DATABASE_URL=postgres://app:", pick(rng, ALNUM, 12), "@db.internal:5432/app"),
            inside("git clone https://x-access-token:", pick(rng, ALNUM, 20), "@host/repository.git"),
            inside("redis://:", pick(rng, ALNUM, 10), "@cache:6379/0"),
        ],
        "authorization": [
            inside("Authorization: Bearer ", mixed + pick(rng, ALNUM, 20)),
            inside("curl -H 'authorization: Basic ", mixed + "==", "'"),
        ],
        "e-mail": [
            inside("Author: Somebody <", f"{name}.{name}@{name}.dev", ">"),
            inside("mailto:", f"{name}@mail.{name}.co.uk"),
        ],
        "secret": [
            inside('password = "', mixed, '"'),
            inside('{"api_key": "', mixed, '", "x": 1}'),
            inside("client-secret: '", mixed, "'"),
            inside('\\"access_token\\": \\"', mixed, '\\"'),
            inside("export MY_API_KEY=", mixed),
            inside("AWS_SECRET_ACCESS_KEY=", mixed + "/x+" + pick(rng, ALNUM, 20)),
        ],
    }  # fmt: skip


def test_made_up_secrets_of_every_form_are_taken_out() -> None:
    missed = []
    total = 0
    for seed in range(12):
        for rule, examples in canaries(random.Random(seed)).items():  # noqa: S311  (a fixed seed, nothing secret)
            for text, secret in examples:
                total += 1
                cleaned, count = redact(text.encode())
                core = secret[len(secret) // 3 : -len(secret) // 3].encode()
                if not count or secret.encode() in cleaned or core in cleaned:
                    missed.append((rule, text, cleaned))
    assert total > 600
    assert missed == []


def test_every_rule_has_an_example_that_it_finds_itself() -> None:
    examples = canaries(random.Random(1))  # noqa: S311
    assert set(examples) == {rule.name for rule in RULES}
    for name, texts_of_rule in examples.items():
        found = b"".join(redact(text.encode())[0] for text, _ in texts_of_rule)
        assert f"[redacted: {name}]".encode() in found, name


@pytest.mark.parametrize(
    "text",
    [
        "commit 3f786850e387550fdab836ed7e6dc881de23001b",
        "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "id 550e8400-e29b-41d4-a716-446655440000",
        "password = getpass.getpass()",
        "token: string;",
        'token = "access_token"',
        "DATABASE_URL=postgres://${DB_USER}:${DB_PASSWORD}@localhost/mydb",
        "export API_KEY=$SECRET",
        "git@github.com:owner/repository.git and noreply@host.org",
        "write to somebody@example.com",
        "max_tokens=123456789",
        "https://host:8080/path@2x.png",
        "task-skip-this-very-long-identifier-with-many-words-inside",
        "@decorator\ndef f(x): return x@y",
        "Basic authentication is described below in section 12",
        "-----BEGIN CERTIFICATE-----",
    ],
)
def test_what_is_no_secret_is_left_alone(text: str) -> None:
    assert redact(text.encode()) == (text.encode(), 0)


def test_at_most_one_line_of_code_in_a_hundred_is_touched() -> None:
    lines = [
        line
        for file in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))[:40]
        for line in file.read_bytes().splitlines()
    ]
    assert len(lines) >= 10_000
    assert sum(redact(line)[1] > 0 for line in lines) <= len(lines) / 100


@given(text=texts())
def test_a_text_without_secrets_stays_the_same_to_the_last_byte(text: str) -> None:
    data = text.encode("utf-8", "surrogatepass")
    assert redact(data) == (data, 0)


@pytest.mark.parametrize("seed", range(3))
def test_taking_out_twice_takes_out_nothing_more(seed: int) -> None:
    for examples in canaries(random.Random(seed)).values():  # noqa: S311
        for text, _ in examples:
            cleaned, count = redact(text.encode())
            assert count >= 1
            assert redact(cleaned) == (cleaned, 0)


def test_what_follows_a_private_key_stays() -> None:
    body = "\n".join(["A1b2" * 16] * 3)
    for end in ("\n-----END PRIVATE KEY-----", ""):
        text = f"-----BEGIN PRIVATE KEY-----\n{body}{end}\nand then never delete the table users"
        assert redact(text.encode()) == (b"[redacted: private key]\nand then never delete the table users", 1)


def test_texts_deep_in_a_json_value_are_cleaned_and_the_rest_is_kept() -> None:
    secret = "gh" + "p_" + "a1" * 18
    value = {"a": [1, None, {"b": f"use {secret}", secret[:3]: 1.5}], "c": True, "d": "\ud800"}
    assert redact_json(value) == {
        "a": [1, None, {"b": "use [redacted: github token]", "ghp": 1.5}],
        "c": True,
        "d": "\ud800",
    }


@pytest.mark.parametrize(
    "piece", ["a@", "eyJ", "sk-", "://a:", "token='", "-----BEGIN PRIVATE KEY-----", "A" * 50 + "="]
)
def test_hostile_texts_take_linear_time(
    piece: str, growth: Callable[[Callable[[int], Callable[[], object]], int], float]
) -> None:
    def redaction(size: int) -> Callable[[], object]:
        text = (piece * (size // len(piece))).encode()
        return lambda: redact(text)

    assert growth(redaction, 50_000) < 40
