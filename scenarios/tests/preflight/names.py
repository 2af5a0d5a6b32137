"""A name server with knobs on 127.0.0.1:5353: `names.py UPSTREAM`.  It passes questions on to the lab's name server, and
misbehaves as the first word of `knob` beside this file says, read anew for each question."""

import os
import socket
import struct
import sys
import threading
import time

UPSTREAM = (sys.argv[1], 53)
HERE = os.path.dirname(os.path.abspath(__file__))


def knob():
    with open(f"{HERE}/knob") as file:
        return file.read().split()


def asked(question):
    at, labels = 12, []
    while question[at]:
        labels.append(question[at + 1 : at + 1 + question[at]].decode())
        at += question[at] + 1
    return ".".join(labels).lower(), question[12 : at + 5]


def upstream(question):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
        out.settimeout(2)
        out.sendto(question, UPSTREAM)
        return out.recv(4096)


def coded(question, code):
    """An empty answer with this response code."""
    return question[:2] + struct.pack(">HHHHH", 0x8180 | code, 1, 0, 0, 0) + asked(question)[1]


def answers(question, stream):
    """The datagrams to send back, none for silence."""
    how, *words = knob()
    if how == "silent":
        return []
    if how in ("servfail", "refused", "notimp"):
        return [coded(question, {"servfail": 2, "refused": 5, "notimp": 4}[how])]
    if how == "garbage":
        return [b"this is no DNS message"]
    if how == "empty" and asked(question)[0] == words[0]:
        return [coded(question, 0)]
    if how == "failing" and asked(question)[0] == words[0]:
        return [coded(question, 2)]
    right = upstream(question)
    wrong = bytes([right[0] ^ 255]) + right[1:]
    if how == "wrong-id":
        return [wrong]
    if how == "stray" and not stream:
        return [wrong, right]
    if how == "slow":
        time.sleep(1.3)
    if how == "lying" and right[3] & 15 == 3:
        name, text = asked(question)
        kind = struct.unpack(">H", text[-4:-2])[0]
        if kind != 1:
            return [coded(question, 0)]
        answer = b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 60, 4) + socket.inet_aton("198.18.255.1")
        return [question[:2] + struct.pack(">HHHHH", 0x8180, 1, 1, 0, 0) + text + answer]
    return [right]


def serve_stream(listener):
    while True:
        peer, _ = listener.accept()
        with peer:
            if knob()[0] == "datagrams-only":
                continue
            length = struct.unpack(">H", peer.recv(2))[0]
            for answer in answers(peer.recv(length), True):
                peer.sendall(struct.pack(">H", len(answer)) + answer)


def serve_datagram(question, peer):
    for answer in answers(question, False):
        datagrams.sendto(answer, peer)


stream = socket.create_server(("127.0.0.1", 5353))
threading.Thread(target=serve_stream, args=(stream,), daemon=True).start()
datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
datagrams.bind(("127.0.0.1", 5353))
while True:
    threading.Thread(target=serve_datagram, args=datagrams.recvfrom(4096), daemon=True).start()
