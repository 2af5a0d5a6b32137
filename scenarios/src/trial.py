"""Starts a server once for each configuration that it is given, and says what the server then does.

  trial.py template DIR BACKEND      makes a database with one account, for trials to start from
  trial.py run CASES WORKERS         runs every case of a file of JSON lines, several at a time; JSON lines to stdout
  trial.py worker CASES N OF         the cases N, N+OF, ...: one of several, in a network of its own

A worker runs where there is only a loopback: whatever a configuration asks for, nothing is reached, and the same port
can be used by every worker.  Nothing is judged here.
"""

import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request

CONDUIT = "/root/bundle/conduit"
ROOT = "/opt/trial"
NAME = "trial.test"
ACCOUNT = {"username": "admin", "password": "known to everybody here"}
# A start that has neither served nor ended by then hangs.  No reading of a clock: only its end is a verdict.
LIMIT = 60.0

unverified = ssl._create_unverified_context()
opener = urllib.request.build_opener(
    urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=unverified)
)


def ask(base, method, path, body=None, token=None, kind="application/json", limit=20):
    """Status and decoded body; raises OSError where nobody answers."""
    data = body if isinstance(body, (bytes, type(None))) else json.dumps(body).encode()
    request = urllib.request.Request(base + path, data=data, method=method)
    if data is not None:
        request.add_header("Content-Type", kind)
    if token:
        request.add_header("Authorization", "Bearer " + token)
    try:
        with opener.open(request, timeout=limit) as answer:
            status, text = answer.status, answer.read()
    except urllib.error.HTTPError as error:
        status, text = error.code, error.read()
    try:
        return status, json.loads(text)
    except ValueError:
        return status, text.decode("utf-8", "replace")


class Server:
    """One start of the server."""

    def __init__(self, directory, toml, env):
        self.directory = directory
        environment = {"PATH": "/usr/bin:/bin", "NO_COLOR": "1", "HOME": directory}
        if toml is None:
            environment["CONDUIT_CONFIG"] = ""
        else:
            path = os.path.join(directory, "conduit.toml")
            with open(path, "w", encoding="utf-8", newline="") as file:
                file.write(toml)
            environment["CONDUIT_CONFIG"] = path
        environment.update(env)
        self.log = open(os.path.join(directory, "log"), "w+b")
        self.process = subprocess.Popen(
            [CONDUIT], cwd=directory, env=environment, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log
        )

    def serves(self, base):
        """Waits until the client API answers (True) or the process has ended (False); None: neither came."""
        deadline = time.monotonic() + LIMIT
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                return False
            try:
                status, _ = ask(base, "GET", "/_matrix/client/versions", limit=5)
                if status == 200:
                    return True
            except OSError:
                pass
            time.sleep(0.005)
        return None

    def said(self):
        self.log.flush()
        with open(os.path.join(self.directory, "log"), "rb") as file:
            return file.read()[-4000:].decode("utf-8", "replace")

    def stop(self):
        """Its exit code; negative for a signal."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.log.close()
        return self.process.returncode


def toml_of(**keys):
    return "[global]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in keys.items())


def template(directory, backend):
    """A database in which `admin` is the administrator and has a session."""
    shutil.rmtree(directory, ignore_errors=True)
    os.makedirs(directory)
    server = Server(
        directory,
        toml_of(
            server_name=NAME, database_backend=backend, database_path=directory + "/data", port=8000,
            allow_registration=True, allow_check_for_updates=False, trusted_servers=[], allow_federation=False,
        ),
        {},
    )
    base = "http://127.0.0.1:8000"
    try:
        if server.serves(base) is not True:
            sys.exit("the template does not start: " + server.said())
        status, answer = ask(base, "POST", "/_matrix/client/v3/register", dict(ACCOUNT, auth={"type": "m.login.dummy"}))
        if status != 200:
            sys.exit(f"the template registers nobody: {status} {answer}")
        session = {"token": answer["access_token"], "user": answer["user_id"]}
        status, answer = ask(base, "GET", "/_matrix/client/v3/directory/room/%23admins:" + NAME)
        if status != 200:
            sys.exit(f"the template has no admin room: {status} {answer}")
        session["room"] = answer["room_id"]
    finally:
        server.stop()
    with open(directory + "/session.json", "w", encoding="utf-8") as file:
        json.dump(session, file)


def effective(base, session):
    """What the server itself says of its configuration: the administrator's command `show-config`."""
    room, token = session["room"], session["token"]
    body = {"msgtype": "m.text", "body": f"@conduit:{NAME}: show-config"}
    path = f"/_matrix/client/v3/rooms/{room}/send/m.room.message/{os.getpid()}-{time.monotonic_ns()}"
    status, answer = ask(base, "PUT", path, body, token)
    if status != 200:
        return {"show-config": f"{status} {answer}"}
    sent, deadline = answer["event_id"], time.monotonic() + LIMIT
    while time.monotonic() < deadline:
        status, answer = ask(base, "GET", f"/_matrix/client/v3/rooms/{room}/messages?dir=b&limit=10", token=token)
        for event in answer.get("chunk", []) if status == 200 else []:
            if event["event_id"] == sent:
                break
            text = event.get("content", {}).get("body", "")
            if "Active config values" in text:
                pairs = [line.split(": ", 1) for line in text.splitlines() if ": " in line]
                return {f"show-config {pair[0]}": pair[1] for pair in pairs if len(pair) == 2}
        time.sleep(0.01)
    return {"show-config": "no answer"}


def files_below(directory):
    found = []
    for path, _, names in os.walk(directory):
        found.extend(os.path.relpath(os.path.join(path, name), directory) for name in names)
    return found


def observe(base, case, session):
    """Everything that a setting shows in.  Volatile parts are left out: two runs of one configuration are the same."""
    seen = {}

    def note(name, method, path, pick, **arguments):
        try:
            status, answer = ask(base, method, path, **arguments)
            seen[name] = pick(status, answer)
        except (OSError, KeyError, TypeError) as error:
            seen[name] = f"failed: {error.__class__.__name__}"

    def whole(status, answer):
        return [status, answer]

    def code(status, answer):
        return [status, answer.get("errcode") if isinstance(answer, dict) else None]

    token = session.get("token") if session else None
    note("well-known client", "GET", "/.well-known/matrix/client", whole)
    note("well-known server", "GET", "/.well-known/matrix/server", whole)
    note("keys", "GET", "/_matrix/key/v2/server", lambda status, answer: [status, answer.get("server_name")])
    note("federation", "GET", "/_matrix/federation/v1/version", lambda status, answer: [status, answer.get("server", answer.get("error"))])
    note("login flows", "GET", "/_matrix/client/v3/login", lambda status, answer: sorted(flow["type"] for flow in answer["flows"]))
    note(
        "registration", "POST", "/_matrix/client/v3/register",
        lambda status, answer: [status, answer.get("errcode"), sorted(stage for flow in answer.get("flows", []) for stage in flow["stages"])],
        body={"username": "x" * 8, "password": "y"},
    )
    if case.get("emergency_password"):
        note(
            "emergency login", "POST", "/_matrix/client/v3/login", code,
            body={"type": "m.login.password", "identifier": {"type": "m.id.user", "user": "conduit"}, "password": case["emergency_password"]},
        )
    if token:
        seen.update(effective(base, session))
        note("capabilities", "GET", "/_matrix/client/v3/capabilities", lambda status, answer: answer["capabilities"]["m.room_versions"], token=token)
        note("upload limit", "GET", "/_matrix/client/v1/media/config", lambda status, answer: answer.get("m.upload.size"), token=token)
        note(
            "turn", "GET", "/_matrix/client/v3/voip/turnServer",
            lambda status, answer: [status, answer.get("uris"), answer.get("ttl"), re.sub(r"\d+", "N", answer.get("username") or "")],
            token=token,
        )
        user = session["user"]
        note(
            "openid", "POST", f"/_matrix/client/v3/user/{user}/openid/request_token",
            lambda status, answer: [status, answer.get("expires_in")], body={}, token=token,
        )
        media = case.get("media_path") or os.path.join(case["data"], "media")
        before = set(files_below(media))
        note("upload", "POST", "/_matrix/media/v3/upload", code, body=b"a rose is a rose", token=token, kind="text/plain")
        new = [path for path in files_below(media) if path not in before]
        # The name is a digest of the content: where the slashes are is the directory structure.
        seen["media below its path"] = [re.sub(r"[0-9a-f]", "h", path) for path in new]
    log = os.path.join(case["data"], "LOG")
    if os.path.exists(log):
        with open(log, encoding="utf-8", errors="replace") as file:
            found = re.search(r"Options\.max_open_files: (-?\d+)", file.read())
            seen["rocksdb max_open_files"] = found and found.group(1)
    seen["tracing.folded"] = os.path.exists(os.path.join(ROOT, "case", case["id"], "tracing.folded"))
    return seen


def run(case):
    directory = os.path.join(ROOT, "case", case["id"])
    shutil.rmtree(directory, ignore_errors=True)
    os.makedirs(directory)
    session = None
    for path in case.get("directories", []):
        os.makedirs(path, exist_ok=True)
    for path, text in case.get("files", {}).items():
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
    if case.get("template"):
        source = os.path.join(ROOT, "template-" + case["template"])
        subprocess.run(["cp", "-a", source + "/data", case["data"]], check=True)
        with open(source + "/session.json", encoding="utf-8") as file:
            session = json.load(file)
    server = Server(directory, case.get("toml"), case.get("env", {}))
    result = {"id": case["id"], "seen": {}}
    try:
        serves = server.serves(case["base"])
        if serves:
            result["seen"] = observe(case["base"], case, session)
        result["said"] = server.said()
        ended = server.process.poll() is not None
        result["outcome"] = "served" if serves and not ended else "exited" if ended else "hung"
    finally:
        exit_code = server.stop()
    result["exit"] = exit_code if result.get("outcome") == "exited" else None
    shutil.rmtree(directory, ignore_errors=True)
    return result


def cases(path):
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file if line.strip()]


def main():
    verb, arguments = sys.argv[1], sys.argv[2:]
    if verb == "template":
        template(arguments[0], arguments[1])
    elif verb == "worker":
        number, of = int(arguments[1]), int(arguments[2])
        for case in cases(arguments[0])[number::of]:
            print(json.dumps(run(case)), flush=True)
    elif verb == "run":
        of = int(arguments[1])
        # A network namespace of its own, with a loopback; the user namespace is what permits it.
        workers = []
        for number in range(of):
            command = ["unshare", "--user", "--map-root-user", "--net", "sh", "-c",
                       'ip link set lo up && exec python3 "$@"', "sh", __file__, "worker", arguments[0], str(number), str(of)]
            # A file each: their lines are longer than what a pipe takes in one piece.
            output = open(f"{arguments[0]}.{number}", "w+", encoding="utf-8")
            workers.append((subprocess.Popen(command, stdout=output), output))
        worst = 0
        for worker, output in workers:
            worst = max(worst, abs(worker.wait()))
            output.seek(0)
            shutil.copyfileobj(output, sys.stdout)
        sys.exit(worst)
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
