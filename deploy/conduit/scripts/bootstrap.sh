#!/usr/bin/env bash
# Brings the site's accounts and rooms to what a manifest declares (bootstrap.md).
#
#   bootstrap.sh check [--manifest FILE] [--server-name NAME]  is the manifest valid?
#   bootstrap.sh plan  [...]                                   what would change; changes nothing
#   bootstrap.sh apply [...]                                   change it
#
# Rooms are made while Conduit serves.  Accounts need open registration, which this site never offers: when accounts are
# missing, and only then, `apply` starts conduit-bootstrap.service.  That is Conduit on a private port with a token for
# this one start; it stops conduit.service, registers, ends, and systemd starts conduit.service again whatever happened.
#
# Exit codes: those of the kit (common.sh).  `plan --detailed-exitcode` ends with 2 when something would change.
set -Eeuo pipefail
umask 077
# shellcheck source-path=SCRIPTDIR source=common.sh
source "${BASH_SOURCE[0]%/*}/common.sh"

readonly UNIT=conduit-bootstrap.service
readonly WINDOW=/run/conduit-bootstrap
readonly TOOL=$CONDUIT_ROOT/bin/fleet-bootstrap
MANIFEST=/root/fleet/fixtures/fleet.toml
SERVER_NAME=

usage() { sed -n '2,6s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; }

# tool COMMAND [ARG...]: fleet-bootstrap with this run's manifest.
tool() {
  local command=$1
  shift
  FLEET_BOOTSTRAP_SERVER_NAME=$SERVER_NAME "$TOOL" "$command" --manifest "$MANIFEST" "$@"
}

# ---- the operator's side ------------------------------------------------------------------------------------------

apply() {
  local pending=0
  lock bootstrap
  systemctl is-active --quiet conduit.service ||
    fail 3 "conduit is not running" "start it (\`systemctl start conduit\`), or see why not: journalctl -u conduit -n 50"
  tool plan --homeserver "$CONDUIT_API" --accounts-only --detailed-exitcode >/dev/null || pending=$?
  case $pending in
    0) ;;
    2) window ;;
    *) exit "$pending" ;; # the tool has said why
  esac
  tool apply --homeserver "$CONDUIT_API"
}

# window: has systemd open the window, waits until it has closed and Conduit serves again.
window() {
  local began=${EPOCHREALTIME/[.,]/} failed=0
  [[ $(systemctl show --property LoadState --value "$UNIT") == loaded ]] || fail 3 "\`$UNIT\` is not installed" "run install.sh"
  # Neither a backup, a restore nor an installation may stop or start Conduit meanwhile.
  lock data
  lock install
  rm -rf "$WINDOW"
  mkdir -m 0700 "$WINDOW"
  cp -- "$MANIFEST" "$WINDOW/fleet.toml"
  printf '%s\n' "$SERVER_NAME" >"$WINDOW/server-name"
  note "accounts are missing: Conduit leaves port 6167 for a moment and opens registration on a private port"
  systemctl start "$UNIT" || failed=1
  if [[ -s $WINDOW/output ]]; then cat "$WINDOW/output"; fi
  # systemd has begun this already; here it is waited for.
  systemctl start conduit.service ||
    fail 1 "conduit did not come back after the bootstrap window" "journalctl -u conduit -u $UNIT -n 50"
  wait_healthy 30 || fail 1 "conduit does not answer after the bootstrap window" "journalctl -u conduit -n 50"
  note "$(printf 'the window is closed; Conduit was away for %d ms' $(((${EPOCHREALTIME/[.,]/} - began) / 1000)))"
  if ((failed)); then
    journalctl --unit "$UNIT" --lines 15 --no-pager --output cat >&2 || true
    fail 1 "the accounts could not be registered; Conduit serves as before" "mend what is said above and run this again: it continues"
  fi
  rm -rf "$WINDOW"
}

# ---- the unit's side (root, outside its sandbox) --------------------------------------------------------------------

# in_window: refuses unless systemd runs this for the unit after a request.
in_window() {
  [[ -s $WINDOW/fleet.toml ]] || fail 3 "nobody asked for a bootstrap window" "use \`bootstrap.sh apply\`"
  MANIFEST=$WINDOW/fleet.toml
  read -r SERVER_NAME <"$WINDOW/server-name" || true
}

window_open() {
  local token
  in_window
  # Letters in front: Conduit reads an environment value of digits as a number and refuses to start.
  token=fleet$(od --address-radix=n --format=x1 --read-bytes=32 /dev/urandom | tr -d ' \n')
  printf '%s' "$token" >"$WINDOW/token"
  printf 'CONDUIT_ALLOW_REGISTRATION=true\nCONDUIT_REGISTRATION_TOKEN=%s\n' "$token" >"$WINDOW/env"
}

window_register() {
  in_window
  tool apply --accounts-only --homeserver "$CONDUIT_API" --registration-token-file "$WINDOW/token" >"$WINDOW/output" 2>&1 || {
    cat "$WINDOW/output" >&2
    exit 1
  }
  # Ended here, not by whoever waits for the unit: they may have been killed.
  kill -TERM "$MAINPID"
  while [[ -d /proc/$MAINPID ]]; do sleep 0.02; done
}

window_close() { rm -f "$WINDOW/token" "$WINDOW/env"; }

# ---- command line ---------------------------------------------------------------------------------------------------

command=${1-}
shift || true
arguments=()
while (($#)); do
  case $1 in
    --manifest | --server-name)
      (($# > 1)) || fail 2 "\`$1\` needs a value" "see \`bootstrap.sh --help\`"
      if [[ $1 == --manifest ]]; then MANIFEST=$2; else SERVER_NAME=$2; fi
      shift
      ;;
    --detailed-exitcode) arguments+=("$1") ;;
    *) fail 2 "unknown argument \`$1\`" "see \`bootstrap.sh --help\`" ;;
  esac
  shift
done
case $command in
  -h | --help) usage ;;
  check) tool check ;;
  plan)
    need_root
    tool plan --homeserver "$CONDUIT_API" "${arguments[@]}"
    ;;
  apply)
    ((${#arguments[@]} == 0)) || fail 2 "\`${arguments[0]}\` belongs to \`plan\`" "see \`bootstrap.sh --help\`"
    need_root
    apply
    ;;
  window-open) need_root && window_open ;;
  window-register) need_root && window_register ;;
  window-close) need_root && window_close ;;
  *) fail 2 "unknown command \`$command\`" "see \`bootstrap.sh --help\`" ;;
esac
