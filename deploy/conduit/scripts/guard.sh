#!/usr/bin/env bash
# What stands between a disaster and a new homeserver; run by conduit.service.
#   guard.sh data      before the start: an existing site's data directory must hold a database.  Conduit would create
#                      another one without a word, with a new signing key.
#   guard.sh identity  after the start, as the server's user and in its sandbox: waits until it answers, then compares its signing
#                      key with site.identity.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=common.sh
source "${BASH_SOURCE[0]%/*}/common.sh"

# Migrations of a large database may take a while; below TimeoutStartSec of the unit.
: "${CONDUIT_START_WAIT:=120}"

guard_data() {
  local file
  # No site.identity: the first start of this site may create the database.
  [[ -e $CONDUIT_IDENTITY ]] || return 0
  for file in CURRENT IDENTITY; do
    [[ -s $CONDUIT_ROOT/data/$file ]] || fail 1 \
      "refusing to start \`$(site_identity server_name)\`: \`$CONDUIT_ROOT/data/$file\` is missing, the database is gone or not whole" \
      "restore a backup (restore.md); starting would make a new homeserver with another signing key"
  done
}

guard_identity() {
  local name id key
  wait_healthy "$CONDUIT_START_WAIT" "${MAINPID-}" ||
    fail 1 "conduit did not become healthy" "see the lines above this one: journalctl -u conduit -n 50"
  [[ -e $CONDUIT_IDENTITY ]] || return 0
  read -r name id key < <(published_key) ||
    fail 1 "cannot read the signing key of the running server" "is \`allow_federation = true\` in conduit.toml?"
  [[ "$name $id $key" == "$(site_identity server_name) $(site_identity key_id) $(site_identity public_key)" ]] || fail 1 \
    "the running server is not this site: it is \`$name\` with key \`$id\` \`$key\`, site.identity says \`$(site_identity key_id)\` \`$(site_identity public_key)\`" \
    "the database is another server's or a new one; restore a backup (restore.md)"
}

case ${1-} in
  data) guard_data ;;
  identity) guard_identity ;;
  *) fail 2 "unknown guard \`${1-}\`" "usage: guard.sh data|identity" ;;
esac
