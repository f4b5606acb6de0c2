"""The web server of ``fastrnn serve``: what it refuses before a request reaches the application."""

import asyncio
import json
import socket

import pytest
import serving

from fastrnn.serve import Options, application, web_server

MOST_BODY_BYTES = 1 << 18

HEAD = b"POST /v2/models/tones/infer HTTP/1.1\r\nHost: a\r\n"
LIVE = b"GET /v2/health/live HTTP/1.1\r\nHost: a\r\n\r\n"
UPGRADE = (
    b"GET /v2/models/tones/stream HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


def served(check):
    """Run `check`, a coroutine function of a port, with a server."""

    async def main():
        listener = socket.create_server(("127.0.0.1", 0))
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 14)
        app = application({"tones": serving.models()["tones"]}, Options(max_body_bytes=MOST_BODY_BYTES))
        server = web_server.make_server(app, Options(), 1)
        serving_task = asyncio.ensure_future(server.serve([listener]))
        while not server.started:
            await asyncio.sleep(0.005)
        try:
            async with asyncio.timeout(30):
                await check(listener.getsockname()[1])
        finally:
            server.should_exit = True
            await serving_task

    asyncio.run(main())


async def answer(reader):
    """The status and the JSON of a response."""
    head = await reader.readuntil(b"\r\n\r\n")
    assert b"content-type: application/json" in head
    length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    return int(head.split()[1]), json.loads(await reader.readexactly(length))


CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("begin", "piece", "status"),
    [
        (b"GET /", b"a" * 4096, 400),
        (HEAD + b"X-A: ", b"a" * 4096, 400),
        (HEAD, b"X-A: abc\r\n" * 410, 400),
        (CHUNKED + b"1", b";" * 4096, 400),
        (CHUNKED + b"1\r\na\r\n0\r\n", b"X-A: abc\r\n" * 410, 400),
        (CHUNKED, b"1000\r\n" + b"a" * 4096 + b"\r\n", 413),  # a body has its own limit
    ],
)
def test_heads_without_end_are_refused(begin, piece, status):
    async def check(port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(begin)
        await asyncio.sleep(0.05)  # what comes with the end of headers or a body is not counted
        for _ in range((web_server.MOST_HEAD_BYTES if status == 400 else MOST_BODY_BYTES) // 4096 + 1):
            assert not reader.at_eof()
            writer.write(piece)
            await writer.drain()
        found, content = await answer(reader)
        assert found == status and list(content) == ["error"]
        if status == 400:
            assert "have more than 65536 bytes" in content["error"]
            assert await reader.read() == b""
        writer.close()

    served(check)


def test_connections_that_send_no_request_are_closed(monkeypatch):
    monkeypatch.setattr(web_server, "HEAD_SECONDS", 0.3)
    inputs = [{"name": "x", "datatype": "FP32", "shape": [1, 1, 3], "data": [1, 2, 3]}]
    body = json.dumps({"inputs": inputs}).encode()
    begins = {
        "nothing": b"",
        "a part": HEAD,
        "a part after a request": LIVE,
        "a slow body": CHUNKED + b"%x\r\n" % len(body),
        "a stream": UPGRADE,
    }

    async def check(port):
        connections = {}
        for name, begin in begins.items():
            connections[name] = await asyncio.open_connection("127.0.0.1", port)
            connections[name][1].write(begin)
        assert (await answer(connections["a part after a request"][0]))[0] == 200
        connections["a part after a request"][1].write(HEAD)
        connections["a slow body"][1].write(body[:5])
        await asyncio.sleep(0.15)
        connections["a part"][1].write(b"X-A: a\r\n")  # which is no end
        connections["a slow body"][1].write(body[5:10])
        await asyncio.sleep(0.35)
        closed = [name for name, (reader, _) in connections.items() if reader.at_eof()]
        assert closed == ["nothing", "a part", "a part after a request"]
        connections["a slow body"][1].write(body[10:] + b"\r\n0\r\n\r\n")
        assert (await answer(connections["a slow body"][0]))[0] == 200
        for _, writer in connections.values():
            writer.close()

    served(check)


def test_answers_that_nobody_takes_are_dropped(monkeypatch):
    """A client that reads slowly gets all of its answer; the memory of one that does not read is free again."""
    monkeypatch.setattr(web_server, "SEND_SECONDS", 0.3)
    inputs = [{"name": "x", "datatype": "FP32", "shape": [250, 16, 3], "data": [0.5] * 12000}]
    body = json.dumps({"inputs": inputs}).encode()
    request = HEAD + b"Content-Length: %d\r\nConnection: close\r\n\r\n" % len(body) + body

    async def ask(port):
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 14)
        client.setblocking(False)
        await asyncio.get_running_loop().sock_connect(client, ("127.0.0.1", port))
        await asyncio.get_running_loop().sock_sendall(client, request)
        return client

    async def take(client, pause):
        """All that comes until the connection ends."""
        data = b""
        while part := await asyncio.get_running_loop().sock_recv(client, 1 << 20):
            data += part
            await asyncio.sleep(pause)
        return data

    async def check(port):
        with await ask(port) as slow, await ask(port) as stuck:
            answer = await take(slow, 0.01)
            assert len(answer) > 1 << 20 and len(json.loads(answer.partition(b"\r\n\r\n")[2])["outputs"]) == 1
            assert len(await take(stuck, 0)) < 1 << 19

    served(check)
