#!/usr/bin/env bash
# What stands between a disaster and a new homeserver; run by conduit.service.
#   guard.sh data      before the start: an existing site's data directory must hold a database.  Conduit would create
#                      another one without a word, with a new signing key.  Nor is a database started again that has lost
#                      its key.
#   guard.sh identity  after the start, as the server's user and in its sandbox: waits until it answers, then compares its
#                      signing key with site.identity.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=common.sh
source "${BASH_SOURCE[0]%/*}/common.sh"

# Migrations of a large database may take a while; below TimeoutStartSec of the unit.
: "${CONDUIT_START_WAIT:=120}"

# Both lie in the data that they are about, so that a restore takes them away with it.  They are written by the server's
# user: root writes nothing where that user could have put a link.
REFUSED=$CONDUIT_ROOT/data/guard.refused # the identity that this database did not have
DOUBT=$CONDUIT_ROOT/data/guard.doubt     # the run in which the server ended before it answered

identity() { printf '%s %s %s' "$(site_identity server_name)" "$(site_identity key_id)" "$(site_identity public_key)"; }

# key_deleted: whether the last run found its signing key unreadable.  Then Conduit has deleted it (Conduit
# src/service/globals/mod.rs:159) and would publish a new one after the next start.
key_deleted() {
  local run
  if [[ ! -f $DOUBT ]] || ! read -r run <"$DOUBT" || [[ ! $run =~ ^[0-9a-f]{32}$ ]]; then return 1; fi
  journalctl --sync || true
  grep --quiet 'Keypair invalid' < <(journalctl --quiet --no-pager --output=cat "_SYSTEMD_INVOCATION_ID=$run")
}

guard_data() {
  local file
  # No site.identity: the first start of this site may create the database.
  [[ -e $CONDUIT_IDENTITY ]] || return 0
  for file in CURRENT IDENTITY; do
    [[ -s $CONDUIT_ROOT/data/$file ]] || fail 1 \
      "refusing to start \`$(site_identity server_name)\`: \`$CONDUIT_ROOT/data/$file\` is missing, the database is gone or not whole" \
      "restore a backup (restore.md); starting would make a new homeserver with another signing key"
  done
  [[ ! -f $REFUSED || $(<"$REFUSED") != "$(identity)" ]] || fail 1 \
    "refusing to start \`$(site_identity server_name)\`: this database was started before, and published another key" \
    "restore a backup (lost-key.md)"
  ! key_deleted || fail 1 \
    "refusing to start \`$(site_identity server_name)\`: its signing key could not be read, and conduit has deleted it" \
    "restore a backup (lost-key.md); starting would make a new homeserver with another signing key"
  if [[ -e $DOUBT ]]; then rm "$DOUBT"; fi
}

guard_identity() {
  local name id key
  wait_healthy "$CONDUIT_START_WAIT" "${MAINPID-}" || {
    printf '%s\n' "${INVOCATION_ID-}" >"$DOUBT" || true
    fail 1 "conduit did not become healthy" "see the lines above this one: journalctl -u conduit -n 50"
  }
  [[ -e $CONDUIT_IDENTITY ]] || return 0
  read -r name id key < <(published_key) ||
    fail 1 "cannot read the signing key of the running server" "is \`allow_federation = true\` in conduit.toml?"
  if [[ "$name $id $key" != "$(identity)" ]]; then
    identity >"$REFUSED" || true
    fail 1 \
      "the running server is not this site: it is \`$name\` with key \`$id\` \`$key\`, site.identity says \`$(site_identity key_id)\` \`$(site_identity public_key)\`" \
      "the database is another server's or a new one; restore a backup (lost-key.md)"
  fi
  # An upgrade that was cut off must not take this database back any more: from here on people write to it.
  if [[ -e $CONDUIT_ROOT/data/guard.unproved ]]; then rm "$CONDUIT_ROOT/data/guard.unproved"; fi
}

case ${1-} in
  data) guard_data ;;
  identity) guard_identity ;;
  *) fail 2 "unknown guard \`${1-}\`" "usage: guard.sh data|identity" ;;
esac
