#!/usr/bin/env bash
# Shared by every script of the kit: `source "${BASH_SOURCE[0]%/*}/common.sh"`.  Defines functions, does nothing itself.
#
# Exit codes of the kit: 0 done, 1 failed, 2 usage, 3 refused (nothing changed), 4 rolled back, 5 verification failed,
# 75 locked by another run.  (health.sh has its own: 0 ok, 1 warning, 2 critical, 3 unknown.)

# The tree and the listener; the tests move them elsewhere.
: "${CONDUIT_ROOT:=/opt/conduit}"
: "${CONDUIT_API:=http://127.0.0.1:6167}"
CONDUIT_IDENTITY=$CONDUIT_ROOT/site.identity
LOCKS=() # descriptors of the locks held

# say TEXT...: a line of result on standard output.
say() { printf '%s\n' "$*"; }

# note TEXT...: a remark for the person, on standard error, so that output can be compared between runs.
note() { printf 'note: %s\n' "$*" >&2; }

# fail CODE MESSAGE [HINT]: ends the script with a message that names operation and object, and what to do.
fail() {
  local code=$1 message=$2 hint=${3-}
  printf 'error: %s\n' "$message" >&2
  if [[ -n $hint ]]; then printf 'hint: %s\n' "$hint" >&2; fi
  exit "$code"
}

# need_root: refuses (3) unless run by root.
need_root() {
  ((EUID == 0)) || fail 3 "\`${0##*/}\` needs root, this is uid $EUID" "run it with sudo"
}

# lock NAME: holds /run/lock/conduit-NAME until the script ends; 75 when another run holds it.  The kernel releases the
# lock when the last holder dies, so no kill leaves it behind.
lock() {
  local name=$1 file=/run/lock/conduit-$1 fd
  exec {fd}>>"$file" || fail 1 "cannot open the lock \`$file\`" "is /run/lock mounted and writable?"
  LOCKS+=("$fd")
  flock --nonblock "$fd" ||
    fail 75 "another run holds the lock \`$name\`" "wait for it to end; \`fuser -v $file\` names it"
}

# unlocked COMMAND...: runs it without our locks, for a child that may outlive us would hold them on.
unlocked() {
  local fd
  (
    for fd in "${LOCKS[@]}"; do exec {fd}>&-; done
    exec "$@"
  )
}

# site_identity [FIELD]: the whole of site.identity, or one of server_name, key_id, public_key, installed_version.
# Returns 1 and prints nothing where no site exists.
site_identity() {
  [[ -s $CONDUIT_IDENTITY ]] || return 1
  if (($# == 0)); then
    cat "$CONDUIT_IDENTITY"
  else
    jq --exit-status --raw-output --arg field "$1" '.[$field] // empty' "$CONDUIT_IDENTITY"
  fi
}

# api_status: the HTTP status of the client API on loopback, `000` when nobody answers.
api_status() {
  curl --silent --noproxy '*' --output /dev/null --write-out '%{http_code}' --connect-timeout 1 --max-time 5 \
    "$CONDUIT_API/_matrix/client/versions" || true
}

# key_in ANSWER: `SERVER_NAME KEY_ID PUBLIC_KEY` out of what a server publishes (spec: server-server, "Publishing keys").
# Returns 1 when it is not of that form.
key_in() {
  jq --exit-status --raw-output \
    '[.server_name, (.verify_keys | to_entries[0] | .key, .value.key)] | select(all(. != null)) | join(" ")' <<<"$1" 2>/dev/null
}

# published_key: the same of the running server.  Returns 1 when there is no answer or it is not of that form.
published_key() {
  local answer
  answer=$(curl --silent --fail --noproxy '*' --connect-timeout 1 --max-time 5 "$CONDUIT_API/_matrix/key/v2/server") || return 1
  key_in "$answer"
}

# wait_healthy SECONDS [PID]: returns when the client API answers 200, asked every 20 ms.  Returns 1 and says what it
# last saw when the time is over, or at once when the process PID has gone.
wait_healthy() {
  local seconds=$1 pid=${2-} status=000 deadline
  deadline=$((${EPOCHREALTIME/[.,]/} + seconds * 1000000))
  while :; do
    status=$(api_status)
    if [[ $status == 200 ]]; then return 0; fi
    if [[ -n $pid && ! -d /proc/$pid ]]; then
      printf 'last seen: the server (process %s) ended before it answered\n' "$pid" >&2
      return 1
    fi
    if ((${EPOCHREALTIME/[.,]/} >= deadline)); then break; fi
    sleep 0.02
  done
  if [[ $status == 000 ]]; then status="no answer"; else status="status $status"; fi
  printf 'last seen: GET %s/_matrix/client/versions: %s, after %s s\n' "$CONDUIT_API" "$status" "$seconds" >&2
  return 1
}
