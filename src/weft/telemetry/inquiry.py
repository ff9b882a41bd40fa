"""The Unix socket on which the control plane asks: one JSON object a line, answered in order."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import msgspec

from weft.errors import WeftError
from weft.telemetry.answers import QUESTIONS
from weft.telemetry.store import Store
from weft.telemetry.windows import BadQuestionError

_log = logging.getLogger(__name__)

_LONGEST_QUESTION: Final = 64 * 1024
_LONGEST_ANSWER: Final = 256 * 1024 * 1024
_TIMEOUT_S: Final = 30.0


class TelemetryError(WeftError):
    """The telemetry process did not answer as asked. ``status``: of HTTP, for who passes it on."""

    def __init__(self, message: str, *, status: int, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.status = status


@asynccontextmanager
async def serve_inquiries(path: Path, store: Store) -> AsyncIterator[None]:
    """Answer on ``path`` (0600) while the block runs."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                writer.write(msgspec.json.encode(await _answer(store, line)) + b"\n")
                await writer.drain()
        except (ConnectionError, ValueError):
            pass
        finally:
            writer.close()

    path.unlink(missing_ok=True)
    before = os.umask(0o177)
    try:
        server = await asyncio.start_unix_server(serve, str(path), limit=_LONGEST_QUESTION)
    finally:
        os.umask(before)
    try:
        yield
    finally:
        server.close()
        path.unlink(missing_ok=True)


async def _answer(store: Store, line: bytes) -> dict[str, Any]:
    try:
        asked = msgspec.json.decode(line, type=dict[str, Any])
        question = QUESTIONS[asked["question"]]
        parameters = {str(key): str(value) for key, value in dict(asked.get("parameters") or {}).items()}
    except (msgspec.DecodeError, KeyError, TypeError, ValueError):
        return {"status": 404, "message": f"there is no such question; known are {', '.join(QUESTIONS)}"}
    try:
        return {"status": 200, "answer": await question(store, parameters)}
    except BadQuestionError as error:
        return {"status": 400, "message": str(error)}
    except Exception as error:
        _log.exception("a question could not be answered")
        return {"status": 500, "message": f"{type(error).__name__}: {error}"}


class _Answer(msgspec.Struct):
    status: int = 500
    message: str = ""
    answer: msgspec.Raw = msgspec.Raw(b"{}")


async def ask(path: Path, question: str, parameters: Mapping[str, str]) -> dict[str, Any]:
    """What the telemetry process on that socket answers.

    Raises:
        TelemetryError: it does not run, is too slow, or refuses the question.
    """
    return msgspec.json.decode(await ask_raw(path, question, parameters), type=dict[str, Any])


async def ask_raw(path: Path, question: str, parameters: Mapping[str, str]) -> bytes:
    """The same as JSON, which costs whoever passes it on nothing, however long it is.

    Raises:
        TelemetryError: it does not run, is too slow, or refuses the question.
    """
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            reader, writer = await asyncio.open_unix_connection(str(path), limit=_LONGEST_ANSWER)
            try:
                writer.write(
                    msgspec.json.encode({"question": question, "parameters": dict(parameters)}) + b"\n"
                )
                answer = msgspec.json.decode(await reader.readline(), type=_Answer)
            finally:
                writer.close()
    except TimeoutError as error:
        raise TelemetryError("the telemetry process does not answer", status=504) from error
    except (OSError, ValueError, msgspec.DecodeError) as error:
        raise TelemetryError(
            "the telemetry process does not run",
            status=503,
            hint="it is started again by itself; the control plane's log says why it ended",
        ) from error
    if answer.status != 200:
        raise TelemetryError(answer.message, status=answer.status)
    return bytes(answer.answer)
