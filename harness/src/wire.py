"""Leads the TCP ports of a lab container to the scenario, over standard input and output.

A frame is a connection's number (4 bytes), what it is (1 byte), a length (4 bytes) and that many bytes. The scenario's
process ends, and standard input with it: then this ends too.
"""
import asyncio
import itertools
import struct
import sys

OPENED, DATA, CLOSED, LISTEN, DEAF, DONE = range(6)
HEAD = struct.Struct("!IBI")
numbers = itertools.count(1)
writers = {}
servers = []


def tell(number, kind, payload=b""):
    sys.stdout.buffer.write(HEAD.pack(number, kind, len(payload)) + payload)
    sys.stdout.buffer.flush()


async def take(port, reader, writer):
    number = next(numbers)
    writers[number] = writer
    tell(number, OPENED, struct.pack("!H", port))
    try:
        while data := await reader.read(65536):
            tell(number, DATA, data)
    except OSError:
        pass  # The caller was reset; for the scenario it is gone in either case.
    tell(number, CLOSED)


async def listen(ports):
    for port in ports:
        callback = lambda reader, writer, port=port: take(port, reader, writer)
        servers.append(await asyncio.start_server(callback, "0.0.0.0", port))


def deaf():
    for server in servers:
        server.close()
    servers.clear()
    for writer in writers.values():
        writer.transport.abort()
    writers.clear()


async def main():
    scenario = asyncio.StreamReader()
    protocol = lambda: asyncio.StreamReaderProtocol(scenario)
    await asyncio.get_running_loop().connect_read_pipe(protocol, sys.stdin.buffer)
    while True:
        try:
            number, kind, length = HEAD.unpack(await scenario.readexactly(HEAD.size))
            payload = await scenario.readexactly(length)
        except asyncio.IncompleteReadError:
            return
        if kind == LISTEN:
            await listen(struct.unpack(f"!{length // 2}H", payload))
            tell(number, DONE)
        elif kind == DEAF:
            deaf()
            tell(number, DONE)
        elif kind == DATA and number in writers:
            writers[number].write(payload)
        elif kind == CLOSED and number in writers:
            writers.pop(number).close()


asyncio.run(main())
