"""Takes every packet that is meant for outside of the lab, and writes down who sent it where.

The containers' default gateway is an address that nobody holds. This answers for it (ARP, RFC 826) and forwards
nothing, so that an attempt to leave the lab ends here and is seen, with its destination.
"""
import json
import socket
import struct
import sys

gateway, subnet = sys.argv[1], sys.argv[2]
prefix = socket.inet_aton(subnet.split("/")[0])[:3]
wanted = socket.inet_aton(gateway)
link = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.ntohs(0x0003))
link.bind(("eth0", 0))
mac = link.getsockname()[4]
with open("/lab/escapes.jsonl", "a", buffering=1) as record:
    open("/lab/watching", "w").close()
    while True:
        frame, address = link.recvfrom(65535)
        if address[2] == socket.PACKET_OUTGOING:
            continue
        kind = struct.unpack("!H", frame[12:14])[0]
        if kind == 0x0806 and frame[20:22] == b"\x00\x01" and frame[38:42] == wanted:
            asker_mac, asker_ip = frame[22:28], frame[28:32]
            answer = asker_mac + mac + b"\x08\x06" + b"\x00\x01\x08\x00\x06\x04\x00\x02" + mac + wanted + asker_mac + asker_ip
            link.send(answer)
        elif kind == 0x0800 and frame[:6] == mac and frame[30:33] != prefix:
            header = (frame[14] & 15) * 4
            ports = frame[14 + header : 18 + header]
            port = struct.unpack("!HH", ports)[1] if frame[23] in (6, 17) and len(ports) == 4 else 0
            line = {
                "from": socket.inet_ntoa(frame[26:30]),
                "to": socket.inet_ntoa(frame[30:34]),
                "protocol": {1: "icmp", 6: "tcp", 17: "udp"}.get(frame[23], str(frame[23])),
                "port": port,
            }
            record.write(json.dumps(line) + "\n")
