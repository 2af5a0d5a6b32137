"""Looks for words wherever a machine keeps bytes, also where they are compressed, encoded, or spread over packets.

Standard input: {"stem", "tokens": {item: token}, "literals": {item: [text]}, "places": [{"name", "kind", "path" or "command"}]}.
Standard output: {place: {"bytes", "parts", "hits": [{"item", "encoding", "within"}], "sizes": [of each part]}}.

A canary is the stem and a token, letters and digits only: neither JSON nor a URL changes them. So each way to write them
has one pattern for all canaries, and what follows it says which one it is.
"""
import base64
import binascii
import json
import os
import re
import sqlite3
import subprocess
import sys
import zlib

LONGEST = 16 << 20
"""What is unpacked of one compressed piece, at most."""


def from_base64(before):
    """What follows a hit whose first letter is not the first of its word's: `before` bytes stood before it."""
    skipped = (before * 8 + 5) // 6

    def decode(data):
        data = re.match(rb"[A-Za-z0-9+/_-]*", data)[0].translate(bytes.maketrans(b"-_", b"+/"))
        data = b"A" * skipped + data
        return base64.b64decode(data[: len(data) // 4 * 4])[before:].decode("latin-1")

    def encode(text):
        # Without the letters that depend on what stands before and after.
        whole = base64.b64encode(b"\0" * before + text.encode())
        return whole[skipped : (before + len(text)) * 8 // 6]

    return encode, decode


def unhex(data):
    data = re.match(rb"[0-9A-Fa-f]*", data)[0]
    return binascii.unhexlify(data[: len(data) // 2 * 2]).decode("latin-1")


ENCODINGS = {
    "as it is": (str.encode, lambda data: data.decode("latin-1")),
    # Whichever end comes first: the zeros between the letters are the same.
    "UTF-16": (lambda text: text.encode("utf-16-le")[:-1], lambda data: data[::2].decode("latin-1")),
    "base64": from_base64(0),
    "base64, shifted by one": from_base64(1),
    "base64, shifted by two": from_base64(2),
    "hexadecimal": (lambda text: text.encode().hex().encode(), unhex),
    "hexadecimal, upper case": (lambda text: text.encode().hex().upper().encode(), unhex),
}


def percent(text):
    return "".join(c if c.isalnum() or c in "-_.~" else "%%%02X" % ord(c) for c in text)


class Search:
    def __init__(self, order):
        self.tokens = {token: item for item, token in order["tokens"].items()}
        self.token = re.compile("|".join(map(re.escape, self.tokens)) or "(?!)")
        stem = order["stem"]
        self.stems = [(name, encode(stem), decode, len(stem)) for name, (encode, decode) in ENCODINGS.items()]
        self.literals = {}
        for item, texts in order["literals"].items():
            for text in texts:
                ways = {"as it is": text, "in JSON": json.dumps(text)[1:-1], "percent-encoded": percent(text)}
                for way, written in ways.items():
                    self.literals.setdefault(written.encode(), (item, way))

    def place(self, parts):
        self.bytes = self.parts = 0
        self.hits, sizes = {}, set()
        for within, data in parts:
            self.parts += 1
            self.bytes += len(data)
            sizes.add(len(data))
            self.look(within, data, "")
        hits = [{"item": item, "encoding": encoding, "within": within} for (item, encoding), within in sorted(self.hits.items())]
        return {"bytes": self.bytes, "parts": self.parts, "hits": hits, "sizes": sorted(sizes)}

    def look(self, within, data, packed):
        for name, pattern, decode, length in self.stems:
            at = data.find(pattern)
            while at >= 0:
                text = decode(data[at : at + 160])[length:]
                known = self.token.match(text)
                item = self.tokens[known[0]] if known else "unknown"
                self.hits.setdefault((item, name + packed), within)
                at = data.find(pattern, at + 1)
        for pattern, (item, way) in self.literals.items():
            if (item, way + packed) not in self.hits and pattern in data:
                self.hits[item, way + packed] = within
        if not packed:
            for unpacked, how in unpack(data):
                self.look(within, unpacked, ", in " + how)


def unpack(data):
    """Whatever is compressed in it."""
    at = data.find(b"\x1f\x8b\x08")
    while at >= 0:
        try:
            unpacked = zlib.decompressobj(31).decompress(data[at : at + LONGEST], LONGEST)
            if unpacked:
                yield unpacked, "gzip"
        except zlib.error:
            pass
        at = data.find(b"\x1f\x8b\x08", at + 1)
    at = data.find(b"\x28\xb5\x2f\xfd")
    while at >= 0:
        # An error after the frame is what follows it; what was unpacked before counts.
        run = subprocess.run(["zstd", "-dcq"], input=data[at : at + LONGEST], capture_output=True)
        if run.stdout:
            yield run.stdout[:LONGEST], "zstd"
        at = data.find(b"\x28\xb5\x2f\xfd", at + 1)


def files(path):
    for directory, _, names in os.walk(path):
        for name in names:
            whole = os.path.join(directory, name)
            if os.path.isfile(whole):
                with open(whole, "rb") as file:
                    yield os.path.relpath(whole, path), file.read()


def rocksdb(path):
    """Every key and every value that is there, of all column families."""
    sys.path.insert(0, "/lab")
    from rocksdict import AccessType, Options, Rdict

    names = Rdict.list_cf(path, Options(raw_mode=True))
    each = {name: Options(raw_mode=True) for name in names}
    database = Rdict(path, Options(raw_mode=True), column_families=each, access_type=AccessType.read_only(False))
    for name in names:
        for key, value in database.get_column_family(name).items():
            yield name, key + b"\0" + value


def sqlite(path):
    """Every row, of all tables."""
    database = sqlite3.connect(path)
    database.text_factory = bytes
    for (table,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
        table = table.decode()
        for row in database.execute('SELECT * FROM "%s"' % table):
            cells = (cell if isinstance(cell, bytes) else str(cell).encode() for cell in row)
            yield table, b"\0".join(cells)


def run(command):
    yield command, subprocess.run(["bash", "-c", command], check=True, capture_output=True).stdout


def packets(path, interface):
    with open(path, "rb") as record:
        for head in iter(record.readline, b""):
            name, length = json.loads(head)
            frame = record.read(length)
            if name == interface and frame[12:14] == b"\x08\x00":
                # Without what pads a short frame; what the kernel has yet to cut into packets may not say its length.
                length = int.from_bytes(frame[16:18], "big") or len(frame)
                yield frame[14 : 14 + length]


def capture(path, interface):
    """Each direction of each connection as one piece, once as it is and once without the marks of chunks; and each packet
    that belongs to none."""
    streams = {}
    for packet in packets(path, interface):
        addresses = packet[12:16], packet[16:20]
        transport = packet[(packet[0] & 15) * 4 :]
        if packet[9] != 6:
            yield "a datagram", transport
            continue
        ports = transport[0:2], transport[2:4]
        number = int.from_bytes(transport[4:8], "big")
        begins = transport[13] & 2
        way = (*addresses, *ports)
        if begins or way not in streams:
            streams.setdefault(way, []).append((number + (1 if begins else 0), {}))
        first, pieces = streams[way][-1]
        payload = transport[(transport[12] >> 4) * 4 :]
        if payload:
            pieces.setdefault((number - first) & 0xFFFFFFFF, payload)
    for (_, _, source, target), all_of_them in streams.items():
        name = "port %d to %d" % (int.from_bytes(source, "big"), int.from_bytes(target, "big"))
        for _, pieces in all_of_them:
            stream = bytearray()
            for at, payload in sorted(pieces.items()):
                # What was sent again is there already.
                stream += payload[max(0, len(stream) - at) :]
            stream = bytes(stream)
            yield name, stream
            if b"chunked" in stream:
                yield name + ", chunks joined", re.sub(rb"\r\n[0-9a-fA-F]+\r\n", b"", stream)


KINDS = {"files": files, "rocksdb": rocksdb, "sqlite": sqlite, "run": run, "capture": capture}

if __name__ == "__main__":
    order = json.load(sys.stdin)
    search = Search(order)
    answer = {}
    for place in order["places"]:
        found = search.place(KINDS[place["kind"]](*place["given"]))
        answer[place["name"]] = found
    json.dump(answer, sys.stdout)
