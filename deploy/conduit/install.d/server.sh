# shellcheck shell=bash disable=SC2034 # sourced by install.sh: variables are shared with its other parts
# Starting Conduit, and going back when a new one does not become healthy.

# Time for a start, migrations included; after it an upgrade is rolled back.  Below TimeoutStartSec of the unit.
: "${CONDUIT_HEALTHY_WITHIN:=120}"

LINK=$ROOT/conduit
OLD_TARGET= # what the link pointed to
RECOVERED=  # what a cut-off upgrade was taken back to
SNAPSHOT=$ROOT/staging/before-upgrade # the data as it was before the new server touched it
UNPROVED=$ROOT/data/guard.unproved # nobody has served this data since the snapshot; guard.sh removes it when somebody does
STARTED_AT= # when the new server was started, for the journal

# set_link TARGET: the rename makes it atomic; there is no moment without a server behind the link.
set_link() {
  ln --symbolic --force --no-dereference "$1" "$LINK.new~"
  mv --force --no-target-directory "$LINK.new~" "$LINK"
}

# start_conduit [SECONDS]: returns when it serves (the unit's guard waits), or fails.
start_conduit() {
  STARTED_AT=$EPOCHSECONDS
  # In the background, so that a signal is heard at once and not when the start is over.
  unlocked timeout "${1:-$CONDUIT_HEALTHY_WITHIN}" systemctl start conduit.service 2>/dev/null &
  wait $!
}

show_journal() { journalctl --unit=conduit.service --since="@$STARTED_AT" --lines=12 --no-pager --output=cat >&2 || true; }

# first_start: a site without an identity; there is nothing to go back to.
first_start() {
  start_conduit && return
  show_journal
  systemctl stop conduit.service || true
  fail 1 "conduit did not become healthy" "its last words are above; mend the cause and run this again (what was installed stays)"
}

# take_snapshot: the stopped database next to the live one.  RocksDB never changes an *.sst file and media is written
# once, so both are linked; everything else is appended to in place and must be copied.  Named so only when it is whole.
take_snapshot() {
  drop_snapshot
  cp --archive --link "$ROOT/data" "$SNAPSHOT.partial"
  find "$ROOT/data" -maxdepth 1 -type f ! -name '*.sst' -print0 |
    xargs --null --no-run-if-empty cp --archive --remove-destination --target-directory="$SNAPSHOT.partial"
  say "$OLD_TARGET" >"$SNAPSHOT.target"
  # By a rename: the directory is the server's, who may have put a link there.
  : >"$SNAPSHOT.unproved"
  mv --force --no-target-directory "$SNAPSHOT.unproved" "$UNPROVED"
  mv --no-target-directory "$SNAPSHOT.partial" "$SNAPSHOT"
}

# drop_snapshot: the new server has proved itself.  What is half removed must not be taken for a snapshot.
drop_snapshot() {
  rm --recursive --force "$SNAPSHOT.partial"
  if [[ -d $SNAPSHOT ]]; then mv --no-target-directory "$SNAPSHOT" "$SNAPSHOT.partial"; fi
  rm --recursive --force "$SNAPSHOT.partial" "$SNAPSHOT.target"
}

# exchange_data: the snapshot becomes the data, and the server that it belongs to gets its link back; what the failed server
# left stays in staging/failed until the end.  Between the renames there is no data, and guard.sh starts nothing: neither
# server ever finds the other's.
exchange_data() {
  rm --recursive --force "$ROOT/staging/failed"
  if [[ -d $ROOT/data ]]; then mv --no-target-directory "$ROOT/data" "$ROOT/staging/failed"; fi
  set_link "$(<"$SNAPSHOT.target")"
  mv --no-target-directory "$SNAPSHOT" "$ROOT/data"
  rm --force "$SNAPSHOT.target"
}

# recover_upgrade: an upgrade that was killed left its snapshot.  Where a server has served since, with the new binary or with
# the old one, people have written; where none has, everything goes back to before the upgrade, and this run starts from there.
recover_upgrade() {
  remove "$SNAPSHOT.partial" "$ROOT/staging/failed"
  if [[ ! -d $SNAPSHOT ]]; then
    remove "$SNAPSHOT.target" "$SNAPSHOT.unproved"
    return
  fi
  if [[ -d $ROOT/data && ! -e $UNPROVED || ${UNIT[conduit.service.ActiveState]-} == active ]]; then
    if change remove "$SNAPSHOT"; then drop_snapshot; fi
    return
  fi
  RECOVERED=$(<"$SNAPSHOT.target")
  UNIT[conduit.service.ActiveState]=inactive
  if change recover "$ROOT/data" "(an upgrade was cut off; back to $RECOVERED)"; then
    systemctl kill --signal=KILL conduit.service 2>/dev/null || true
    systemctl stop conduit.service || true
    exchange_data
    rm --recursive --force "$ROOT/staging/failed"
  fi
}

# guarded_start NEW_TARGET: stop, snapshot, swap, start; or everything back as it was (exit 4).
guarded_start() {
  lock backup # a backup that has the server stopped would start it under our hands
  trap 'roll_back "was interrupted"' INT TERM
  # The server is not left stopped for, say, a disk that is full.
  trap '((BASH_SUBSHELL)) || roll_back "could not be put in place: \`$BASH_COMMAND\` failed"' ERR
  systemctl stop conduit.service
  systemctl reset-failed conduit.service 2>/dev/null || true
  take_snapshot
  if [[ $1 != "$OLD_TARGET" ]]; then set_link "$1"; fi
  start_conduit || roll_back "did not become healthy within $CONDUIT_HEALTHY_WITHIN s, or not as this site"
  trap - INT TERM
  trap 'unexpected $? "$BASH_COMMAND"' ERR
  drop_snapshot
}

# roll_back REASON: the old server on the old data.
roll_back() {
  trap '' INT TERM
  trap 'unexpected $? "$BASH_COMMAND"' ERR
  local failed=${RELEASE:-}
  note "conduit $1; rolling back"
  show_journal
  systemctl kill --signal=KILL conduit.service 2>/dev/null || true
  systemctl stop conduit.service || true
  undo_files
  rm --recursive --force "$SNAPSHOT.partial"
  # What the failed server wrote was acknowledged to nobody; what it migrated the old one cannot read.
  if [[ -d $SNAPSHOT ]]; then exchange_data; fi
  set_link "$OLD_TARGET"
  systemctl daemon-reload
  systemctl reset-failed conduit.service 2>/dev/null || true
  # However short the new server's time was, the old one gets all that it may need.
  start_conduit 300 || {
    show_journal
    fail 1 "the new server failed, and the old one does not start either" \
      "the data is as it was before (the failed server's copy: $ROOT/staging/failed); see journalctl -u conduit, or restore.md"
  }
  rm --recursive --force "$ROOT/staging/failed"
  if [[ "releases/$failed/conduit" != "$OLD_TARGET" ]]; then rm --recursive --force "$ROOT/releases/${failed:?}"; fi
  fail 4 "\`conduit $VERSION\` ($failed) $1; rolled back to \`$OLD_TARGET\`, which serves again" \
    "the failed server's last words are above; nothing was lost, the new release is removed"
}

# ensure_identity: records what this site is, once it serves.
ensure_identity() {
  local file=$ROOT/site.identity verb=create name id key
  if [[ -s $file ]]; then
    verb=replace
    if [[ $(site_identity installed_version) == "$VERSION" ]]; then return; fi
  fi
  change "$verb" "$file" "(0644 root:root)" || return 0
  read -r name id key < <(published_key) || fail 1 "cannot read the signing key of the running server" "is \`allow_federation = true\` in conduit.toml?"
  [[ $name == "$SERVER_NAME" ]] || fail 1 "the server calls itself \`$name\`, not \`$SERVER_NAME\`" \
    "conduit.toml (kept, it was edited) names another server; mend it before anything depends on it"
  write_file "$file" 0644 root:root "$(jq --null-input --arg n "$name" --arg i "$id" --arg k "$key" --arg v "$VERSION" \
    '{server_name: $n, key_id: $i, public_key: $k, installed_version: $v}')"$'\n'
  sync "$file"
}
