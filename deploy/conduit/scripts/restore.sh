#!/usr/bin/env bash
# Puts a backup in the place of the site's data: onto the same host, or onto a freshly installed new one.
#
#   restore.sh SNAPSHOT|latest [options]  restore a snapshot of the repository
#   restore.sh --from DIR [options]       restore a snapshot that was unpacked into DIR
#   restore.sh undo                       put the data back that an unfinished restore set aside
#     --refuse                stop if the data directory holds something (default)
#     --replace               the data directory holds something: set it aside as data.before-TIME
#     --server-name NAME      the server name the snapshot must have, where no conduit.toml says it
#     --repository R          another restic repository (default: backup.env, else /opt/conduit/backups/restic)
#     --password-file FILE    its password (default: /opt/conduit/secrets/restic-password)
#     --with-config           restore conduit.toml too, although there is one
#     --drain N               take N one-time keys from each device (default 25; drain.sh says why)
#
# Everything is verified before anything is touched. The old data stays beside the new, and comes back by itself when
# the restored server does not prove to be the site of the snapshot.
#
# States a crash can leave behind. There is a journal (staging/restore.json) from the verification until the proof;
# without one the old data is in place and a new run begins from nothing. With one, by what exists (NEW is the verified
# tree in staging/, OLD is data.before-TIME):
#   NEW  data  -    before the swap: the old data is in place
#   NEW  -     OLD  between the two renames: guard.sh refuses to start Conduit
#   -    data  OLD  swapped: the new data is in place, not yet proved
#   -    -     OLD  the swap is being undone
#   -    data  -    undone: the old data is in place
# A new run goes on from each. So data/ is the old or the new one, whole, or absent, and absent is never started.
#
# Test hook: /run/conduit-restore.failpoint, see `step` in archive.sh.
set -Eeuo pipefail
umask 077
# shellcheck source-path=SCRIPTDIR source=common.sh
source "${BASH_SOURCE[0]%/*}/common.sh"
# shellcheck source-path=SCRIPTDIR source=archive.sh
source "${BASH_SOURCE[0]%/*}/archive.sh"

# shellcheck disable=SC2034 # read by `step`
FAILPOINT=/run/conduit-restore.failpoint

# {"snapshot", "time", "old": PATH or "", "new": PATH}; exists from the moment before the swap until the proof.
readonly JOURNAL=$STAGING/restore.json

usage() { sed -n '2,14s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; }

# Where Conduit listens while nobody may come in, and what of systemd's puts it there.
readonly PRIVATE_API=http://127.0.0.1:6168
readonly PRIVATE_UNIT=/run/systemd/system/conduit.service.d/private.conf

DRAIN=25
SNAPSHOT='' FROM='' REPLACE='' EXPECTED_NAME='' REPOSITORY='' PASSWORD_FILE='' WITH_CONFIG='' UNDO=''

parse() {
  while (($#)); do
    case $1 in
      --help | -h) usage; exit 0 ;;
      --refuse) REPLACE=''; shift; continue ;;
      --replace) REPLACE=yes; shift; continue ;;
      --with-config) WITH_CONFIG=yes; shift; continue ;;
      --from | --server-name | --repository | --password-file | --drain)
        [[ -n ${2-} ]] || fail 2 "\`$1\` takes a value" "restore.sh --help"
        ;;
    esac
    case $1 in
      --from) FROM=$(realpath -m -- "$2"); shift 2 ;;
      --server-name) EXPECTED_NAME=$2; shift 2 ;;
      --repository) REPOSITORY=$2; shift 2 ;;
      --password-file) PASSWORD_FILE=$2; shift 2 ;;
      --drain) DRAIN=$2; shift 2 ;;
      -*) fail 2 "unknown option \`$1\`" "restore.sh --help" ;;
      undo) UNDO=yes; shift ;;
      *)
        [[ -z $SNAPSHOT ]] || fail 2 "one snapshot, not \`$SNAPSHOT\` and \`$1\`" "restore.sh --help"
        SNAPSHOT=$1
        shift
        ;;
    esac
  done
  [[ $DRAIN =~ ^[0-9]{1,4}$ ]] || fail 2 "\`$DRAIN\` is no number of keys" "restore.sh --help"
  [[ -n $UNDO$SNAPSHOT$FROM ]] || fail 2 "no snapshot given" "\`backup.sh list\` shows them; \`restore.sh latest\` takes the newest"
  [[ -z $SNAPSHOT || -z $FROM ]] || fail 2 "give a snapshot or \`--from\`, not both" "restore.sh --help"
  [[ -z $SNAPSHOT || $SNAPSHOT == latest || $SNAPSHOT =~ ^[0-9a-f]{8,64}$ ]] || fail 2 "\`$SNAPSHOT\` is no snapshot id" "\`backup.sh list\` shows them"
}

# on_exit: removes what a failed run unpacked; what belongs to a swap under way stays for the next run.
on_exit() {
  local status=$?
  trap - EXIT
  if [[ ! -e $JOURNAL && -n ${WORK-} ]]; then rm -rf "$WORK" "$WORK".*; fi
  exit "$status"
}

# is_empty DIR: whether the directory is missing or holds nothing.
is_empty() { [[ ! -e $1 || -z $(find "$1" -mindepth 1 -print -quit) ]]; }

refuse_running_server() {
  ! conduit_is_up || fail 3 "conduit is running" "stop it first: \`systemctl stop conduit\`"
  ! database_is_locked || fail 3 "a process holds \`$DATA/LOCK\`" "\`fuser -v $DATA/LOCK\` names it"
}

preflight() {
  local tool
  for tool in restic jq curl openssl find xargs flock; do
    command -v "$tool" >/dev/null || fail 3 "\`$tool\` is not installed" "apt-get install restic jq curl openssl"
  done
  if [[ ! -x $ROOT/conduit ]] || ! id conduit >/dev/null 2>&1; then
    fail 3 "conduit is not installed on this machine" "run install.sh first, then \`systemctl stop conduit\`"
  fi
  refuse_running_server
  ! mountpoint -q "$DATA" || fail 3 "\`$DATA\` is a mount point, which cannot be swapped" "mount \`$ROOT\` as a whole instead"
  [[ ! -L $DATA ]] || fail 3 "\`$DATA\` is a symbolic link, which cannot be swapped" "mount \`$ROOT\` as a whole instead"
  is_empty "$DATA" || [[ -n $REPLACE ]] ||
    fail 3 "\`$DATA\` is not empty" "look whether it is still needed; \`--replace\` sets it aside as \`$DATA.before-TIME\`, nothing is deleted"
}

# fetch_manifest FILE: finds out which snapshot is meant, and reads its manifest.
fetch_manifest() {
  if [[ -n $FROM ]]; then
    [[ -d $FROM ]] || fail 3 "\`$FROM\` is no directory" "it must hold manifest.json, data/ and site/"
    # A pipe would be waited for, a link be followed.
    if [[ ! -f $FROM/manifest.json || -L $FROM/manifest.json ]] || ! cp "$FROM/manifest.json" "$1"; then
      fail 5 "\`$FROM\` has no readable manifest" "use another backup"
    fi
    return
  fi
  open_repository "$REPOSITORY" "$PASSWORD_FILE"
  [[ -s $RESTIC_PASSWORD_FILE ]] || fail 3 "\`$RESTIC_PASSWORD_FILE\` is missing" "bring the copy that is kept off the machine, or name it with \`--password-file\`"
  if [[ $SNAPSHOT == latest && -z $REPOSITORY && -s $CATALOG ]]; then
    SNAPSHOT=$(tail -n 1 "$CATALOG" | jq -er .snapshot) || fail 5 "\`$CATALOG\` is damaged" "name the snapshot; \`restic snapshots\` lists them"
  elif [[ $SNAPSHOT == latest ]]; then
    SNAPSHOT=$(run_restic snapshots --no-lock --json --tag conduit | jq -er 'max_by(.time).short_id') ||
      fail 3 "no snapshot in \`$RESTIC_REPOSITORY\` that can be read" "is it the right repository and password?"
    note "no catalogue here: took the newest snapshot of the repository, \`$SNAPSHOT\`"
  fi
  if ! run_restic dump --no-lock "$SNAPSHOT" manifest.json >"$1" 2>"$1.error"; then
    ! grep -q -i -E 'no matching id|invalid id|wrong password|unable to open config|does not exist|gave up' "$1.error" ||
      fail 3 "no snapshot \`$SNAPSHOT\` in \`$RESTIC_REPOSITORY\` that can be read: $(reason <"$1.error")" "\`backup.sh list\` shows the good ones; is it the right repository and password?"
    fail 5 "snapshot \`$SNAPSHOT\` has no readable manifest: $(reason <"$1.error")" "use another one: \`backup.sh list\`"
  fi
}

# check_manifest FILE: the snapshot is of this site, fits onto the disk, and its database suits the installed binary.
check_manifest() {
  local manifest=$1 wanted name needed free version installed
  jq -e '.format == 1 or .format == 2' "$manifest" >/dev/null 2>&1 || fail 5 "the manifest of \`${SNAPSHOT:-$FROM}\` is damaged" "use another backup: \`backup.sh list\`"
  name=$(jq -r .server_name "$manifest")
  wanted=$EXPECTED_NAME
  if [[ -z $wanted && -f $ROOT/conduit.toml ]]; then wanted=$(toml_value "$ROOT/conduit.toml" server_name); fi
  if [[ -z $wanted ]]; then wanted=$(site_identity server_name || true); fi
  [[ -n $wanted ]] || fail 3 "nothing here says which site this is to be" "say it: \`--server-name $name\`"
  [[ $name == "$wanted" ]] || fail 3 "the backup is of \`$name\`, this host serves \`$wanted\`" "a server name cannot be changed; use a backup of \`$wanted\`"

  version=$(jq -r .conduit.version "$manifest") installed=$("$ROOT/conduit" --version | awk '{ print $2 }')
  # An older binary panics on a newer database (Conduit src/database/mod.rs:1093); a newer one migrates it, for good.
  [[ $(printf '%s\n%s\n' "$version" "$installed" | sort -V | tail -n 1) == "$installed" ]] ||
    fail 3 "the backup was made by conduit $version, installed is $installed" "install $version or newer first; the binary is in the snapshot, in site/release/"

  # Not the total that it names: giants of holes take no room, and would be read for days.
  needed=$(jq '[.files[]?.bytes? | numbers] | (add // 0) * 1.1 | ceil | [., 9e15] | min' "$manifest")
  free=$(df --output=avail --block-size=1 "$STAGING" | tail -n 1)
  ((free >= needed)) ||
    fail 3 "\`$STAGING\` has $(human "$free") free, the restore needs $(human "$needed")" "free some space: old data directories ($ROOT/data.*), journal, packages"
}

# unpack: the snapshot's tree into $WORK. restic refuses names that lead out of the target.
unpack() {
  mkdir "$WORK"
  if [[ -n $FROM ]]; then
    cp -a --reflink=auto -t "$WORK" "$FROM"/. || fail 5 "\`$FROM\` cannot be read" "use another backup"
  else
    run_restic restore --no-lock --quiet --target "$WORK" "$SNAPSHOT" || fail 5 "snapshot \`$SNAPSHOT\` cannot be read" "use another one: \`backup.sh list\`"
  fi
}

verify() {
  local wrong status=0
  cmp -s "$WORK/manifest.json" "$WORK.manifest" || fail 5 "the manifest changed while it was read" "run the restore again"
  wrong=$(check_snapshot_tree "$WORK") || status=$?
  case $status in
    0) ;;
    1) fail 5 "the backup is damaged: $wrong" "nothing was changed; use another one: \`backup.sh list\`" ;;
    *) fail 1 "the backup could not be verified" "nothing was changed; see the messages above: is the disk full?" ;;
  esac
  # Numeric owners differ from host to host.
  chown -R conduit:conduit "$WORK/data"
  chmod -R u=rwX,go= "$WORK/data"
  # Everything on disk before anything takes its place.
  sync -f "$WORK"
}

# journal FIELD
journal() { jq -er ".$1" "$JOURNAL"; }

# swap_state: which of the states above it is: new, middle, swapped, undoing or undone.
swap_state() {
  local found=
  if [[ -d $(journal new)/data ]]; then found+=N; fi
  if [[ -e $DATA ]]; then found+=d; fi
  if [[ -e $(journal old) ]]; then found+=O; fi
  case $found in
    Nd) echo before ;;
    NO) echo middle ;;
    dO) echo swapped ;;
    O) echo undoing ;;
    d) echo undone ;;
    *) fail 1 "the directories \`$ROOT/data*\` and \`$(journal new)\` are in no state that a restore leaves behind" "somebody moved them; put the right one to \`$DATA\`, then remove \`$JOURNAL\`" ;;
  esac
}

# swap: one rename sets the old data aside, the next puts the new in its place.
swap() {
  local old new state
  old=$(journal old) new=$(journal new) state=$(swap_state)
  if [[ $state == before ]]; then
    # The new identity comes first: with it guard.sh starts nothing but the new data.
    replace_file "$CONDUIT_IDENTITY" 644 <"$new/site/site.identity"
    mv -T "$DATA" "$old"
    sync "$ROOT"
    step swap-middle
    state=middle
  fi
  if [[ $state == middle ]]; then
    mv -T "$new/data" "$DATA"
    sync "$ROOT" "$new"
  fi
}

# unswap: the old data and identity back; the new data is kept as data.failed-TIME to be looked at.
unswap() {
  local old new failed
  serve_in_public
  old=$(journal old) new=$(journal new) failed=$ROOT/data.failed-$(journal time)
  if [[ $(swap_state) == swapped ]]; then
    mv -T "$DATA" "$failed"
    note "the restored data is kept in \`$failed\`"
  fi
  if [[ -e $old ]]; then mv -T "$old" "$DATA"; fi
  if [[ -e $new.identity ]]; then
    replace_file "$CONDUIT_IDENTITY" 644 <"$new.identity"
  else
    rm -f "$CONDUIT_IDENTITY"
  fi
  sync "$ROOT"
  rm -f "$JOURNAL"
  rm -rf "$new" "$new".*
}

# restore_site: configuration and secrets. Existing secrets are those of newer data, and are kept beside.
restore_site() {
  local new=$1 file name mode caddy=/var/lib/caddy/.local/share/caddy
  if [[ -n $WITH_CONFIG || ! -e $ROOT/conduit.toml ]]; then
    replace_file "$ROOT/conduit.toml" 640 root:conduit <"$new/site/conduit.toml"
  fi
  mkdir -p "$ROOT/secrets"
  for file in "$new"/site/secrets/*; do
    [[ -f $file ]] || continue
    name=${file##*/}
    ! cmp -s "$file" "$ROOT/secrets/$name" || continue
    if [[ -e $ROOT/secrets/$name ]]; then
      mkdir -p "$ROOT/secrets/before-$(journal time)"
      cp -a -n -t "$ROOT/secrets/before-$(journal time)" "$ROOT/secrets/$name"
      # Before the only other copy of it is replaced.
      sync "$ROOT/secrets/before-$(journal time)/$name" "$ROOT/secrets/before-$(journal time)"
    fi
    mode=$(stat -c %a "$file")
    replace_file "$ROOT/secrets/$name" "$mode" <"$file"
  done
  # A new machine need not ask the certificate authority again.
  if [[ -d $new/site/caddy-storage/certificates && ! -d $caddy/certificates ]] && id caddy >/dev/null 2>&1; then
    mkdir -p "$caddy"
    cp -a -n -t "$caddy" "$new"/site/caddy-storage/.
    chown -R caddy:caddy /var/lib/caddy
  fi
}

# prove: the server that runs is the site of the snapshot.
prove() {
  local promised published
  promised=$(jq -r '"\(.server_name) \(.key_id) \(.public_key)"' "$(journal new)/manifest.json")
  published=$(published_key) || published="no answer"
  [[ $published == "$promised" ]] || { note "the server publishes \`$published\`, the snapshot promises \`$promised\`"; return 1; }
}

serve_in_public() {
  [[ -e $PRIVATE_UNIT ]] || return 0
  systemctl stop conduit.service || true
  rm -f "$PRIVATE_UNIT"
  systemctl daemon-reload
}

# drain: takes one-time keys while Conduit listens where the proxy does not look. Once only: a second time would leave
# devices without any. Returns 1 only when the server does not start, and then it must not be started again.
drain() {
  if ((DRAIN == 0)) || jq -e .drained "$JOURNAL" >/dev/null; then return 0; fi
  systemctl stop conduit.service
  mkdir -p "${PRIVATE_UNIT%/*}"
  printf '[Service]\nEnvironment=CONDUIT_ADDRESS=127.0.0.1 CONDUIT_PORT=%s CONDUIT_API=%s\n' "${PRIVATE_API##*:}" "$PRIVATE_API" >"$PRIVATE_UNIT"
  chmod 644 "$PRIVATE_UNIT"
  systemctl daemon-reload
  systemctl start conduit.service || return 1
  CONDUIT_API=$PRIVATE_API "$ROOT/scripts/drain.sh" "$DRAIN" ||
    note "one-time keys were not drained: messages from new devices to old ones may not be decrypted; see \`What to tell the users\` in restore.md"
  jq '.drained = true' "$JOURNAL" | replace_file "$JOURNAL"
}

start_and_prove() {
  systemctl reset-failed conduit.service 2>/dev/null || true
  if drain && serve_in_public && systemctl start conduit.service && prove; then return; fi
  journalctl -u conduit -n 5 --no-pager -o cat >&2 || true
  systemctl stop conduit.service || true
  unswap
  fail 4 "the restored server did not prove to be the site of the snapshot; the old data is in place again, conduit is stopped" \
    "see the lines above and \`journalctl -u conduit -n 50\`"
}

finish() {
  local old new
  old=$(journal old) new=$(journal new)
  say "restored $(journal snapshot): $(jq -r '"\(.server_name) as of \(.created), \(.files | length) files, \(.media_count) media"' "$new/manifest.json")"
  say "signing key $(site_identity key_id) $(site_identity public_key)"
  rm -f "$JOURNAL"
  sync "$STAGING"
  rm -rf "$new" "$new".*
  if is_empty "$old"; then
    rm -rf "$old"
    say "old data none"
  else
    say "old data $old"
    note "when the site is as it should be, remove the old data: rm -rf $old"
  fi
}

# resume: goes on with a restore that was killed after its verification.
resume() {
  local wanted=${SNAPSHOT:-$FROM}
  jq -e .time "$JOURNAL" >/dev/null 2>&1 || fail 1 "\`$JOURNAL\` is damaged" "compare \`$ROOT/data*\`: the data directory is whole, old or new; then remove the file"
  [[ $wanted == "$(journal asked)" || $wanted == "$(journal snapshot)" ]] ||
    fail 3 "the restore of \`$(journal asked)\` is unfinished" "finish it: \`restore.sh $(journal asked)\`, or put the old data back: \`restore.sh undo\`"
  note "going on with the restore of \`$(journal snapshot)\` begun at $(journal time)"
}

undo() {
  [[ -e $JOURNAL ]] || fail 3 "no restore is unfinished" "old data of a finished one lies in \`$ROOT/data.before-*\`"
  refuse_running_server
  unswap
  say "the old data is in place again; conduit is stopped"
}

main() {
  local time
  step lock
  # Held by backup.sh and by an upgrade too.
  lock backup
  mkdir -p "$STAGING"
  trap on_exit EXIT
  trap '((BASHPID == $$)) || exit 1; fail 1 "step \`$STEP\` failed in line $LINENO" "see the message above; run the same command again, it goes on or begins anew"' ERR
  if [[ -n $UNDO ]]; then
    undo
    return
  fi

  if [[ -e $JOURNAL ]]; then
    resume
    case $(swap_state) in
      # Conduit may run if a killed run got as far as its start, or the machine was booted since; not before.
      before | middle) refuse_running_server ;;
      undoing | undone)
        refuse_running_server
        note "that restore was being undone: the old data is in place, beginning anew"
        unswap
        ;;
    esac
  fi
  if [[ ! -e $JOURNAL ]]; then
    rm -rf "$STAGING"/restore.*
    step preflight
    preflight
    time=$(date -u +%Y%m%dT%H%M%SZ)-$$
    WORK=$STAGING/restore.$time
    ASKED=${SNAPSHOT:-$FROM}
    step manifest
    fetch_manifest "$WORK.manifest"
    check_manifest "$WORK.manifest"
    step unpack
    unpack
    step verify
    verify
    step journal
    refuse_running_server
    mkdir -p "$DATA"
    # The way back needs it whole: by an empty one no server is let start.
    if [[ -e $CONDUIT_IDENTITY ]]; then replace_file "$WORK.identity" <"$CONDUIT_IDENTITY"; fi
    jq -n --arg asked "$ASKED" --arg snapshot "${SNAPSHOT:-$FROM}" --arg time "$time" --arg old "$DATA.before-$time" --arg new "$WORK" \
      '{asked: $asked, snapshot: $snapshot, time: $time, old: $old, new: $new}' | replace_file "$JOURNAL"
  fi

  step swap
  swap
  step site
  restore_site "$(journal new)"
  step start
  start_and_prove
  step finish
  finish
}

parse "$@"
need_root
main
