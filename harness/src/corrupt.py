"""Corrupts a copy of an unpacked snapshot, or of a store, in one way. Runs on a Host.

The argument is one JSON object; the answer one JSON line, {"did": TEXT}, or {"skipped": WHY} where there is nothing of
that kind to corrupt. `base` is left as it is; `to` becomes its corrupted copy, made of hard links but for what differs.
With `sealed` the manifest is written anew afterwards: the corruption was there before the backup was made.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys

order = json.loads(sys.argv[1])
BASE, TO = order["base"], order["to"]


def at(name):
    return os.path.join(TO, name)


def done(text):
    print(json.dumps({"did": text}))
    sys.exit(0)


def skip(why):
    print(json.dumps({"skipped": why}))
    sys.exit(0)


def read(name):
    with open(at(name), "rb") as file:
        return file.read()


def write(name, content):
    """Replaces a file without touching the one that it is a link of."""
    path = at(name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    if os.path.lexists(path):
        os.unlink(path)
    with open(path, "wb") as file:
        file.write(content)


def copy_database(base, to):
    """The database's files as copies; only tables never change in place."""
    for name in os.listdir(os.path.join(base, "data")):
        path = os.path.join(base, "data", name)
        if os.path.isfile(path) and not name.endswith(".sst"):
            target = os.path.join(to, "data", name)
            os.unlink(target)
            shutil.copy2(path, target)


class Rows:
    """The column families of a database, raw."""

    def __init__(self, path):
        sys.path.insert(0, "/opt/rocksdict")
        from rocksdict import Options, Rdict

        self.path = path
        options = Options(raw_mode=True)
        options.create_if_missing(False)
        self.families = Rdict.list_cf(path)
        raw = {name: Options(raw_mode=True) for name in self.families}
        self.database = Rdict(path, options=options, column_families=raw)

    def of(self, family):
        return self.database.get_column_family(family)

    def close(self):
        self.database.close()
        os.unlink(os.path.join(self.path, "rocksdict-config.json"))


def tell(key):
    return "".join(chr(byte) if 32 <= byte < 127 else "." for byte in key)[:120]


def flip(content, seed):
    bit = seed % (len(content) * 8)
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << (bit % 8)
    return bytes(changed), bit


def corrupt_row():
    copy_database(BASE, TO)
    rows = Rows(at("data"))
    if order["family"] not in rows.families:
        rows.close()
        skip(f"no family {order['family']}")
    family = rows.of(order["family"])
    exact, holding = order.get("key", "").encode(), order.get("holding", "").encode()
    keys = [key for key, value in family.items() if (not exact or key == exact) and (holding in key or holding in value)]
    if not keys:
        rows.close()
        skip(f"no row in {order['family']}")
    key = keys[order["seed"] % len(keys)]
    if order["how"] == "delete" or not family[key]:
        del family[key]
        did = f"row `{tell(key)}` of `{order['family']}` deleted"
    else:
        family[key], bit = flip(family[key], order["seed"] // 7)
        did = f"bit {bit} of row `{tell(key)}` of `{order['family']}` flipped"
    rows.close()
    return did


def corrupt_file():
    op, name, seed = order["op"], order["file"], order["seed"]
    if op == "extra":
        write(name, b"what is this")
        return f"`{name}` added"
    if op == "giant":
        write(name, b"")
        os.truncate(at(name), 1 << 40)
        return f"`{name}` added, a hole of 1 TiB"
    if op in ("link", "outside", "pipe"):
        os.unlink(at(name))
        if op == "pipe":
            os.mkfifo(at(name))
            return f"`{name}` became a pipe"
        target = "/etc/hostname" if op == "link" else "../../../../../etc/passwd"
        os.symlink(target, at(name))
        return f"`{name}` became a link to `{target}`"
    if op == "remove":
        os.unlink(at(name))
        return f"`{name}` removed"
    content = read(name)
    if op == "older":
        older = os.path.join("/opt/older", name)
        if not os.path.isfile(older):
            skip(f"no older `{name}`")
        with open(older, "rb") as file:
            old = file.read()
        if old == content:
            skip(f"the older `{name}` is the same")
        write(name, old)
        return f"`{name}` replaced by an older one"
    if op == "swap":
        other = read(order["other"])
        if other == content:
            skip("both are the same")
        write(name, other)
        write(order["other"], content)
        return f"`{name}` and `{order['other']}` swapped"
    if op == "empty" and content:
        write(name, b"")
        return f"`{name}` emptied"
    if not content:
        skip(f"`{name}` is empty")
    if op == "flip":
        changed, bit = flip(content, seed)
        write(name, changed)
        return f"bit {bit} of `{name}` flipped, of {len(content)} bytes"
    if op == "truncate":
        size = seed % len(content)
        write(name, content[:size])
        return f"`{name}` cut to {size} of {len(content)} bytes"
    if op == "zero":
        first = (seed % len(content)) // 4096 * 4096
        changed = content[:first] + bytes(min(4096, len(content) - first)) + content[first + 4096 :]
        if changed == content:
            skip("there were zeroes already")
        write(name, changed)
        return f"4 KiB of `{name}` zeroed at {first}, of {len(content)} bytes"
    raise ValueError(op)


def corrupt_manifest():
    manifest = json.loads(read("manifest.json"))
    place = manifest
    for step in order["path"][:-1]:
        place = place[step]
    last = order["path"][-1]
    if order["value"] is None:
        place.pop(last)
    else:
        place[last] = order["value"]
    write("manifest.json", json.dumps(manifest, indent=2).encode() + b"\n")
    return f"manifest: `{'.'.join(order['path'])}` became {json.dumps(order['value'])}"


def foreign():
    """Another server's files in the place of ours: its database, its identity, or all of it."""
    what = order["what"]
    if what in ("data", "all"):
        shutil.rmtree(at("data"))
        shutil.copytree("/opt/foreign/data", at("data"))
    if what in ("identity", "all"):
        with open("/opt/foreign/site.identity", "rb") as file:
            write("site/site.identity", file.read())
    return f"{what} of another server"


def seal():
    """The manifest as backup.sh would write it over what is there now."""
    manifest = json.loads(read("manifest.json"))
    old, files, torn = manifest["files"], {}, []
    for directory, _, names in os.walk(TO):
        for name in names:
            path = os.path.join(directory, name)
            short = os.path.relpath(path, TO)
            if short == "manifest.json":
                continue
            # What is still a link is what it was.
            there = os.stat(path)
            if short in old and there.st_nlink > 1 and there.st_size == old[short]["bytes"]:
                files[short] = old[short]
                continue
            with open(path, "rb") as file:
                content = file.read()
            digest = hashlib.sha256(content).hexdigest()
            files[short] = {"bytes": len(content), "sha256": digest}
            if short.startswith("data/media/") and short[11:].replace("/", "") != digest:
                torn.append(short)
    identity = json.loads(read("site/site.identity"))
    manifest.update({key: identity[key] for key in ("server_name", "key_id", "public_key")})
    manifest["files"] = files
    manifest["damaged_media"] = torn
    manifest["media_count"] = sum(name.startswith("data/media/") for name in files)
    manifest["total_bytes"] = sum(file["bytes"] for file in files.values())
    manifest.pop("digest", None)
    canonical = subprocess.run(["jq", "-cS", "."], input=json.dumps(manifest).encode(), capture_output=True, check=True)
    manifest["digest"] = hashlib.sha256(canonical.stdout).hexdigest()
    write("manifest.json", json.dumps(manifest, indent=2).encode() + b"\n")


def explain():
    """Which rows differ between the corrupted copy and the original, by family."""
    tables = []
    for tree in (BASE, TO):
        copy = "/opt/rows"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(os.path.join(tree, "data"), copy, ignore=shutil.ignore_patterns("media"))
        try:
            rows = Rows(copy)
            tables.append({family: dict(rows.of(family).items()) for family in rows.families})
            rows.close()
        except Exception as error:  # The library has one for everything that RocksDB says.
            done(f"rows that cannot be read, though nobody asked for them: {error}")
    told = []
    for family in sorted(set(tables[0]) | set(tables[1])):
        old, new = tables[0].get(family, {}), tables[1].get(family, {})
        count = sum(old.get(key) != new.get(key) for key in set(old) | set(new))
        if count:
            told.append(f"{count} of `{family}`")
    done("rows that differ: " + (", ".join(told) or "none"))


if order["op"] == "explain":
    explain()
shutil.rmtree(TO, ignore_errors=True)
subprocess.run(["cp", "-al", BASE, TO], check=True)
if order["op"] == "nothing":
    seal()
    done("nothing")
did = {"row": corrupt_row, "manifest": corrupt_manifest, "foreign": foreign}.get(order["op"], corrupt_file)()
if order.get("sealed"):
    seal()
done(did)
