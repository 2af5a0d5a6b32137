"""Writes down every packet that this machine sends or receives, on loopback and outside, until it is told to stop.

What is written: for each packet a line of JSON with its length, then its bytes. When it ends it says how many the kernel
had to drop: a capture with holes proves nothing.
"""
import json
import os
import signal
import socket
import struct

SOL_PACKET, PACKET_STATISTICS = 263, 6
RECEIVE_BUFFER = 64 << 20

link = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.ntohs(0x0003))
link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
link.settimeout(0.1)
ended = False


def end(*_):
    global ended
    ended = True


signal.signal(signal.SIGTERM, end)
packets = 0
with open("/lab/capture", "wb") as record:
    open("/lab/capturing", "w").close()
    while True:
        try:
            frame, address = link.recvfrom(1 << 18)
        except TimeoutError:
            # Only when the buffer is empty: what came before the end is written down, too.
            if ended:
                break
            continue
        # On loopback each packet is seen as it goes and as it comes.
        if address[0] == "lo" and address[2] == socket.PACKET_OUTGOING:
            continue
        packets += 1
        head = json.dumps([address[0], len(frame)]).encode()
        record.write(head + b"\n" + frame)
_, dropped = struct.unpack("II", link.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))
with open("/lab/captured.partial", "w") as said:
    json.dump({"packets": packets, "dropped": dropped}, said)
os.rename("/lab/captured.partial", "/lab/captured")
