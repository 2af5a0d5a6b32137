#!/usr/bin/env bash
# Backs the site up into a restic repository, with Conduit away for a moment only.
#
#   backup.sh [--label TEXT]  back up now; the last line of output is `snapshot ID`
#   backup.sh latest          the newest good snapshot
#   backup.sh list            every good snapshot, oldest first
#   backup.sh verify ID       read a snapshot back, every byte, and compare it with its manifest
#   backup.sh unlock          remove every lock from the repository; only when no machine works on it any more
#
# The work is done inside conduit-backup.service (`backup.sh run`), wherever the command was given. A script cannot
# clean up after its own SIGKILL; systemd can: ExecStopPost (`backup.sh ensure-running`) starts Conduit again.
#
# How the stop stays short: RocksDB never changes an *.sst file, so these, and media, are hard-linked into the staging
# directory beforehand; write-ahead logs only grow, so they are copied beforehand and their new tails later. While
# Conduit is stopped only what is new is linked and a few small files are copied. The rest happens while it serves.
#
# Test hook: /run/conduit-backup.failpoint, see `step` in archive.sh.
set -Eeuo pipefail
umask 077
# shellcheck source-path=SCRIPTDIR source=common.sh
source "${BASH_SOURCE[0]%/*}/common.sh"
# shellcheck source-path=SCRIPTDIR source=archive.sh
source "${BASH_SOURCE[0]%/*}/archive.sh"

FAILPOINT=/run/conduit-backup.failpoint

readonly UNIT=conduit-backup.service
# Fixed, so that restic recognises unchanged files by their path, and reads only what is new.
readonly STAGE=$STAGING/backup
readonly RUN=/run/conduit-backup
# Present while Conduit is stopped by us and must come back.
readonly STOPPED_BY_US=$RUN/conduit-must-run
# What a killed run may have left in the repository: `tag TAG` or `snapshot ID` lines; on disk, because a power cut
# kills runs too.
readonly PENDING=$BACKUPS/forget.pending
# What the last good backup consisted of: `PATH<TAB>BYTES<TAB>INODE TIME<TAB>SHA256` lines.
readonly KNOWN=$BACKUPS/known-files
# Snapshots up to this size are read back in full after each backup; larger ones in part (see `verify`).
readonly READ_BACK_LIMIT=$((2 * 1024 ** 3))

usage() { sed -n '2,9s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; }

# ---- the operator's side ------------------------------------------------------------------------------------------

# start_unit LABEL: has systemd run the backup, shows its progress on standard error and its result on standard output,
# and ends with its exit code.
start_unit() {
  local label=$1 progress=$RUN/progress start
  [[ ${#label} -le 200 && $label != *[[:cntrl:]]* ]] || fail 2 "the label is longer than 200 characters or holds control characters" "use a short line of text"
  [[ $(systemctl show -P LoadState "$UNIT") == loaded ]] || fail 3 "\`$UNIT\` is not installed" "run install.sh"
  lock backup-request
  case $(systemctl show -P ActiveState "$UNIT") in
    inactive | failed) ;;
    *) fail 75 "a backup is running" "wait for it to end; \`journalctl -fu $UNIT\` shows it" ;;
  esac
  mkdir -p "$RUN"
  rm -f "$RUN/result" "$RUN/status"
  : >"$progress"
  printf 'by %s\n%s\n' "$$" "$label" >"$RUN/request"

  systemctl start "$UNIT" 2>/dev/null &
  start=$!
  tail --sleep-interval=0.1 --lines=+1 --follow --pid="$start" "$progress" >&2
  wait "$start" || true
  # The last word on a run that was killed is ensure-running's; systemd bounds it (TimeoutStopSec).
  while [[ $(systemctl show -P ActiveState "$UNIT") == deactivating ]]; do sleep 0.1; done

  # The timer may have been quicker: then this request was not the one that ran.
  if [[ -e $RUN/request ]]; then
    rm -f "$RUN/request"
    fail 75 "another backup was running" "run this again"
  fi
  # Every end but a kill leaves its exit code.
  [[ -f $RUN/status ]] || fail 1 "the backup was killed; conduit is $(systemctl is-active conduit.service || true)" \
    "nothing was catalogued; run it again, it cleans up first"
  if [[ -f $RUN/result ]]; then cat "$RUN/result"; fi
  exit "$(<"$RUN/status")"
}

# ---- the unit's side ----------------------------------------------------------------------------------------------

# ensure_running: brings Conduit back if a backup stopped it, whatever became of that backup.
ensure_running() {
  [[ -e $STOPPED_BY_US ]] || return 0
  start_conduit
}

start_conduit() {
  # A start that fails for its rate limit succeeds after reset-failed.
  systemctl start conduit.service ||
    { systemctl reset-failed conduit.service && systemctl start conduit.service; } ||
    fail 1 "conduit did not start again after the backup" "journalctl -u conduit -n 50"
  rm -f "$STOPPED_BY_US"
}

# on_exit: whatever happened, Conduit runs and no staging is left.
on_exit() {
  local status=$?
  trap - EXIT
  (ensure_running) || status=1
  # Somebody else's staging if that run holds the lock.
  ((status == 75)) || rm -rf "$STAGE" "$STAGE".*
  echo "$status" >"$RUN/status"
  if [[ -n ${PROGRESS_PID-} ]]; then
    exec 2>/dev/null
    wait "$PROGRESS_PID" || true
  fi
  exit "$status"
}

# seconds_between FROM TO: microseconds of a monotonic clock to seconds.
seconds_between() { printf '%d.%03d' $((($2 - $1) / 1000000)) $((($2 - $1) / 1000 % 1000)); }

preflight() {
  local tool odd needed free
  for tool in restic jq curl openssl find xargs flock tar; do
    command -v "$tool" >/dev/null || fail 3 "\`$tool\` is not installed" "apt-get install restic jq curl openssl"
  done
  [[ -s $CONDUIT_IDENTITY ]] || fail 3 "\`$CONDUIT_IDENTITY\` is missing: no site is installed here" "run install.sh first"
  SERVER_NAME=$(site_identity server_name) KEY_ID=$(site_identity key_id) PUBLIC_KEY=$(site_identity public_key)
  [[ $(toml_value "$ROOT/conduit.toml" database_backend) == rocksdb ]] ||
    fail 3 "\`$ROOT/conduit.toml\` does not say \`database_backend = \"rocksdb\"\`" "this backup knows RocksDB only"
  odd=$(toml_value "$ROOT/conduit.toml" path)
  [[ -z $odd || $odd == "$DATA"/media ]] ||
    fail 3 "media lies in \`$odd\`, outside of \`$DATA/media\`" "remove \`path\` from [global.media] and move the files"
  odd=$(check_database "$DATA") || fail 3 "\`$DATA\` is not a database: $odd" "restore a backup (restore.md)"
  # guard.sh's marks: a database that has lost its key would be the newest backup, and drive out those that have it.
  for odd in refused doubt; do
    [[ ! -e $DATA/guard.$odd ]] || fail 3 "conduit did not come up with this database, or as another server (\`$DATA/guard.$odd\`)" \
      "\`systemctl start conduit\` says why; if its key is lost, lost-key.md"
  done
  odd=$(find "$DATA" ! -type f ! -type d -print -quit)
  [[ -z $odd ]] || fail 3 "\`$odd\` is neither file nor directory" "nothing but Conduit's files belongs into \`$DATA\`"
  odd=$(find "$DATA" -regextype posix-extended ! -regex '[A-Za-z0-9._/@+-]+' -print -quit)
  [[ -z $odd ]] || fail 3 "the name \`$odd\` is none that Conduit makes" "move it out of \`$DATA\`"
  [[ $(stat -c %d "$DATA") == $(stat -c %d "$STAGING") ]] ||
    fail 3 "\`$DATA\` and \`$STAGING\` are on different file systems" "links do not cross file systems: put both on one"
  if conduit_is_up && odd=$(published_key) && [[ $odd != "$SERVER_NAME $KEY_ID $PUBLIC_KEY" ]]; then
    fail 3 "the running server publishes \`$odd\`, site.identity says \`$SERVER_NAME $KEY_ID $PUBLIC_KEY\`" "this is not the site that was installed; see restore.md"
  fi

  open_repository
  find_repository
  [[ -s $RESTIC_PASSWORD_FILE ]] || fail 3 "\`$RESTIC_PASSWORD_FILE\` is missing" "bring back the copy that is kept off this machine"
  odd=$(unlock_repository 2>&1) ||
    fail 3 "the repository \`$RESTIC_REPOSITORY\` cannot be opened: $(reason <<<"$odd")" "is \`$RESTIC_PASSWORD_FILE\` the password that it was made with, and \`$ROOT/backup.env\` right?"
  check_repository
  forget_pending

  needed=$(copied_bytes)
  free=$(df --output=avail --block-size=1 "$STAGING" | tail -n 1)
  ((free >= needed * 12 / 10)) ||
    fail 3 "\`$STAGING\` has $(human "$free") free, the backup needs about $(human $((needed * 12 / 10)))" "free some space: old data directories ($ROOT/data.*), journal, packages"
}

# find_repository: makes it where there is none. A store that does not answer is not taken for an empty one.
find_repository() {
  local said
  if repository_is_local; then
    [[ ! -f $RESTIC_REPOSITORY/config ]] || return 0
  else
    if [[ -s $RESTIC_PASSWORD_FILE ]]; then
      if said=$(run_restic cat config --no-lock 2>&1 >/dev/null); then return 0; fi
    else
      # Whether there is a repository shows before the password counts.
      said=$(RESTIC_PASSWORD_FILE='' RESTIC_PASSWORD=none run_restic cat config --no-lock 2>&1 >/dev/null) || true
    fi
    case $said in
      *'wrong password or no key found'*) return 0 ;;
      *'does not exist'*) ;;
      *) fail 3 "the repository \`$RESTIC_REPOSITORY\` does not answer: $(reason <<<"$said")" "is the store up, and are address and credentials in \`$ROOT/backup.env\` right? Nothing was touched; run it again" ;;
    esac
  fi
  [[ ! -s $CATALOG ]] ||
    fail 3 "there is no repository \`$RESTIC_REPOSITORY\`, yet backups are catalogued" "bring it back, or move \`$CATALOG\` away to begin a new one"
  if [[ ! -s $RESTIC_PASSWORD_FILE ]]; then
    openssl rand -hex 32 | replace_file "$RESTIC_PASSWORD_FILE"
    note "made \`$RESTIC_PASSWORD_FILE\`: keep a copy off this machine, no backup can be read without it"
  fi
  run_restic init --quiet || fail 1 "cannot make the repository \`$RESTIC_REPOSITORY\`" "see the message of restic above"
}

# check_repository: nobody else holds it, and it is of this site.
check_repository() {
  local listed other
  listed=$(run_restic snapshots --quiet --json --tag conduit 2>"$RUN/said") || {
    ! other=$(grep -m 1 -o 'already locked.*' "$RUN/said") ||
      fail 75 "the repository \`$RESTIC_REPOSITORY\` is $other" "another machine is at work there; if it is dead, \`backup.sh unlock\`"
    fail 3 "the repository \`$RESTIC_REPOSITORY\` cannot be read: $(reason <"$RUN/said")" "is the store up, and may these credentials write? Nothing was touched; run it again"
  }
  other=$(jq -r --arg name "$SERVER_NAME" '[.[]?.hostname | select(. != $name)] | unique | join("`, `")' <<<"$listed")
  [[ -z $other ]] ||
    fail 3 "the repository \`$RESTIC_REPOSITORY\` holds backups of \`$other\`, this host serves \`$SERVER_NAME\`" "each site has a repository of its own: name another one in \`$ROOT/backup.env\`"
}

# copied_bytes: an upper estimate of what a backup adds to this disk. Links cost nothing; a local repository grows by
# what changed since the newest backup.
copied_bytes() {
  local bytes since=()
  bytes=$(find "$DATA" -maxdepth 1 -type f ! -name '*.sst' -printf '%s\n' | awk '{ s += $1 } END { printf "%.0f\n", s + 16777216 }')
  if repository_is_local; then
    if [[ -s $CATALOG ]]; then since=(-newermt "@$(tail -n 1 "$CATALOG" | jq .time)"); fi
    bytes=$((bytes + $(find "$DATA" "$ROOT/releases" -type f "${since[@]}" -printf '%s\n' | awk '{ s += $1 } END { printf "%.0f\n", s }')))
  fi
  echo "$bytes"
}

# unlock_repository: removes the locks of processes that are gone, and what they had not finished writing, which restic itself
# never does. It is the first that needs the password.
unlock_repository() {
  local all=()
  # restic keeps locks whose process id is in use again; no other machine uses a local repository.
  if repository_is_local && ! pgrep -x restic >/dev/null; then
    all=(--remove-all)
    find "$RESTIC_REPOSITORY" -type f -name '*-tmp-*' -delete
  fi
  run_restic unlock --quiet "${all[@]}"
}

# forget_pending: removes from the repository what killed runs left there.
forget_pending() {
  local kind what ids=()
  [[ -s $PENDING ]] || return 0
  while read -r kind what; do
    case $kind in
      tag) mapfile -t -O "${#ids[@]}" ids < <(run_restic snapshots --json --tag "$what" | jq -r '.[].id') ;;
      snapshot) mapfile -t -O "${#ids[@]}" ids < <(run_restic snapshots --json | jq -r --arg id "$what" '.[].id | select(startswith($id))') ;;
    esac
  done <"$PENDING"
  # The list is older than the catalogue where a run died, or the power went, between the two. What is catalogued is good.
  if ((${#ids[@]})) && [[ -s $CATALOG ]]; then
    mapfile -t ids < <(printf '%s\n' "${ids[@]}" |
      jq -R -r --slurpfile listed "$CATALOG" 'select(. as $id | all($listed[].snapshot; . as $short | $id | startswith($short) | not))')
  fi
  if ((${#ids[@]})); then run_restic forget --quiet --prune "${ids[@]}"; fi
  rm -f "$PENDING"
}

# look DIR FILE: lists in FILE, as `INODE PATH`, what may be linked, and in FILE.logs, as `BYTES NAME`, the write-ahead
# logs. With the inode, because after a restart RocksDB may use the number of a dropped table again.
look() {
  (cd "$1" && exec find . -type f \( \
    \( -name '*.sst' -o -name '*.blob' -o -path './media/*' \) -fprintf "$2" '%i %P\n' -o \
    -name '*.log' -fprintf "$2.logs" '%s %P\n' \))
}

# link_into_stage: links the files named on standard input into the staging directory.
link_into_stage() { (cd "$DATA" && exec xargs -d '\n' -r cp -al --parents --remove-destination -t "$STAGE/data" --); }

prelink() {
  mkdir -p "$STAGE/data"
  look "$DATA" "$STAGE.seen"
  # A table may vanish while we link (compaction); the delta sets that right.
  cut -d ' ' -f 2- "$STAGE.seen" | link_into_stage 2>/dev/null || true
  # A log that RocksDB writes anew in place would not be a continuation of our copy.
  if ! grep -q -s -E '^ *recycle_log_file_num=[^0]' "$DATA"/OPTIONS-*; then
    cp -a -t "$STAGE/data" "$DATA"/*.log 2>/dev/null || true
  fi
  look "$STAGE/data" "$STAGE.linked"
}

# collect_site: everything that makes the site besides the database, into the staging directory.
collect_site() {
  local site=$STAGE/site release path caddy=/var/lib/caddy/.local/share/caddy
  mkdir -p "$site/units" "$site/secrets" "$site/caddy" "$site/caddy-storage" "$site/release" "$site/bootstrap"
  cp -aL -t "$site" "$ROOT/conduit.toml" "$CONDUIT_IDENTITY" "$ROOT/scripts"
  find "$ROOT/secrets" -mindepth 1 -maxdepth 1 ! -name restic-password ! -name 'before-*' -exec cp -aL -t "$site/secrets" -- {} +
  for path in /etc/systemd/system/{conduit*,caddy.service.d} /etc/sysusers.d/conduit.conf; do
    if [[ -e $path ]]; then cp -aL -t "$site/units" "$path"; fi
  done
  if [[ -d /etc/caddy ]]; then cp -aL -t "$site/caddy" /etc/caddy/.; fi
  for path in "$caddy"/{acme,certificates}; do
    if [[ -d $path ]]; then cp -aL -t "$site/caddy-storage" "$path"; fi
  done
  for path in "$ROOT"/*.toml /root/fleet/fixtures/fleet.toml; do
    if [[ -f $path && $path != "$ROOT/conduit.toml" ]]; then cp -aL -t "$site/bootstrap" "$path"; fi
  done
  if [[ -f $CATALOG ]]; then cp -a -t "$site" "$CATALOG"; fi
  release=$(readlink -f "$ROOT/conduit")
  RELEASE=$(basename "$(dirname "$release")")
  mkdir "$site/release/$RELEASE"
  # A link where possible, like the database's files: the binary is never written in place.
  cp -al -t "$site/release/$RELEASE" "$release" 2>/dev/null || cp -aL -t "$site/release/$RELEASE" "$release"
  if [[ -d $ROOT/bin ]]; then cp -aL -t "$site" "$ROOT/bin"; fi
  CONDUIT_VERSION=$("$release" --version | awk '{ print $2 }')
}

# stop_conduit: returns when no process has the database open.
stop_conduit() {
  WAS_UP=
  if conduit_is_up; then
    WAS_UP=yes
    # The starts of earlier backups must not add up to the unit's start limit.
    systemctl reset-failed conduit.service
    # From here to the start users wait: before the others in the queue for the processor, where that is allowed.
    renice -n -10 $$ >/dev/null 2>&1 || true
    : >"$STOPPED_BY_US"
    systemctl stop conduit.service || fail 1 "cannot stop conduit" "journalctl -u conduit -n 50"
  fi
  ! database_is_locked || fail 1 "a process holds \`$DATA/LOCK\` although conduit is stopped" "\`fuser -v $DATA/LOCK\` names it; nothing was copied"
  : >"$STAGE.stopped"
}

# delta: completes the staging directory. Every process started here is time that users wait for.
delta() {
  local new size log
  local -A have=()
  look "$DATA" "$STAGE.final"
  new=$(awk 'NR == FNR { seen[$0]; next } !($0 in seen) { sub(/^[0-9]+ /, ""); print }' "$STAGE.linked" "$STAGE.final")
  if [[ -n $new ]]; then link_into_stage <<<"$new"; fi
  (cd "$DATA" && exec cp -a -t "$STAGE/data" CURRENT IDENTITY MANIFEST-* OPTIONS-*)
  while read -r size log; do have[$log]=$size; done <"$STAGE.linked.logs"
  while read -r size log; do
    if [[ -z ${have[$log]-} ]] || ((have[$log] > size)); then
      cp -a -t "$STAGE/data" "$DATA/$log"
    elif ((have[$log] < size)); then
      tail -c "+$((have[$log] + 1))" "$DATA/$log" >>"$STAGE/data/$log"
    fi
  done <"$STAGE.final.logs"
  # RocksDB begins a new LOG whenever it opens a database: somebody may have started Conduit meanwhile, and then
  # nothing of this can be trusted.
  if database_is_locked || [[ $DATA/LOG -nt $STAGE.stopped ]]; then
    fail 1 "conduit was started by somebody while its files were copied" "nothing was kept; run the backup again"
  fi
}

# start_again: brings Conduit back if it ran; sets SECONDS_DOWN by systemd's monotonic clock, from the order to stop
# until the server answered (ExecStartPost of conduit.service).
start_again() {
  local from to
  SECONDS_DOWN=0
  [[ -n $WAS_UP ]] || return 0
  from=$(systemctl show -P ActiveExitTimestampMonotonic conduit.service)
  start_conduit
  to=$(systemctl show -P ActiveEnterTimestampMonotonic conduit.service)
  SECONDS_DOWN=$(seconds_between "$from" "$to")
  printf 'downtime %s s\n' "$SECONDS_DOWN" >&2
}

# list_staged: the listing of the staging directory as list_tree makes it. A file that by inode, size and time is the one of
# the last good backup is not read again: restic, too, takes it for what it was. But a tenth of these is, another one each
# time: what has changed although nobody wrote it is a failing disk.
list_staged() {
  local known=$KNOWN turn=0 rotten
  [[ -s $known ]] || known=/dev/null
  if [[ -s $CATALOG ]]; then turn=$(($(wc -l <"$CATALOG") % 10)); fi
  (
    cd "$STAGE" || exit
    find . -type f ! -path ./manifest.json -printf '%P\t%s\t%i %T@\n' | LC_ALL=C sort >"$STAGE.stat"
    : >"$STAGE.unread"
    awk -F '\t' -v turn="$turn" -v unread="$STAGE.unread" '
      FILENAME == ARGV[1] { hash[$1 FS $2 FS $3] = $4; next }
      { split($3, file, " ") }
      $0 in hash && file[1] % 10 != turn { print $0 FS hash[$0] > unread; next }
      { print }' "$known" "$STAGE.stat" >"$STAGE.unknown"
    cut -f 1 "$STAGE.unknown" | xargs -d '\n' -r openssl dgst -sha256 -r | cut -c -64 | paste "$STAGE.unknown" - >"$STAGE.read"
    LC_ALL=C sort "$STAGE.unread" "$STAGE.read" >"$STAGE.known"
  )
  rotten=$(awk -F '\t' 'FILENAME == ARGV[1] { hash[$1 FS $2 FS $3] = $4; next }
    ($1 FS $2 FS $3) in hash && hash[$1 FS $2 FS $3] != $4 { print $1 }' "$known" "$STAGE.read" | head -n 3 | paste -sd ' ')
  [[ -z $rotten ]] || fail 5 "changed since the last backup although nobody wrote it: \`$rotten\`" \
    "the disk is failing; the repository still has it as it was (restore.md, on another disk). Without \`$KNOWN\` a backup takes it as it is"
  cut -f 1,2,4 "$STAGE.known"
}

verify_staging() {
  local wrong attempt
  # What was compacted away or deleted between prelink and stop.
  (cd "$STAGE/data" && awk 'FILENAME == ARGV[1] { sub(/^[0-9]+ /, ""); final[$0]; next } { sub(/^[0-9]+ /, "") } !($0 in final)' \
    <(cat "$STAGE.final" "$STAGE.final.logs") <(cat "$STAGE.linked" "$STAGE.linked.logs") | xargs -d '\n' -r rm -f --)
  wrong=$(check_database "$STAGE/data") || fail 5 "the staged database is not whole: $wrong" "run the backup again; if it stays, \`$DATA\` itself is damaged"
  # Conduit writes the file again when the same content is uploaded again (service/media/mod.rs:634): look twice.
  for attempt in 1 2 3; do
    list_staged >"$STAGE.tree"
    torn_media "$STAGE.tree" >"$STAGE.torn"
    [[ -s $STAGE.torn && $attempt != 3 ]] || break
    sleep 1
  done
  if [[ -s $STAGE.torn ]]; then
    note "$(wc -l <"$STAGE.torn") media files do not contain what their names say (interrupted uploads, or a failing disk): $(head -n 3 "$STAGE.torn" | paste -sd ' ')"
  fi
}

write_manifest() {
  jq -R -n \
    --arg id "$ID" --arg created "$CREATED" --arg text "$LABEL" --arg server_name "$SERVER_NAME" \
    --arg key_id "$KEY_ID" --arg public_key "$PUBLIC_KEY" --arg version "$CONDUIT_VERSION" --arg release "$RELEASE" \
    --argjson seconds_down "$SECONDS_DOWN" --arg restic "$(restic version | awk '{ print $2 }')" --rawfile torn "$STAGE.torn" '
    [inputs | split("\t") | {key: .[0], value: {bytes: (.[1] | tonumber), sha256: .[2]}}] | from_entries as $files |
    {format: 2, id: $id, created: $created, label: $text, server_name: $server_name, key_id: $key_id, public_key: $public_key,
     conduit: {implementation: "conduit", version: $version, release: $release, sha256: $files["site/release/\($release)/conduit"].sha256},
     seconds_down: $seconds_down, media_count: [$files | keys[] | select(startswith("data/media/"))] | length,
     total_bytes: [$files[].bytes] | add, damaged_media: ($torn | split("\n") | map(select(. != ""))),
     tool: "backup.sh 1, restic \($restic)", files: $files}' <"$STAGE.tree" >"$STAGE.manifest"
  jq --arg digest "$(digest_manifest <"$STAGE.manifest")" '. + {digest: $digest}' "$STAGE.manifest" >"$STAGE/manifest.json"
}

archive() {
  local answer
  printf 'tag %s\n' "run-$ID" | replace_file "$PENDING"
  # --ignore-ctime: linking changes it. A wrong guess would not pass the read-back.
  answer=$(cd "$STAGE" && run_restic backup --json --ignore-ctime --host "$SERVER_NAME" --tag "conduit,run-$ID" . | tail -n 1) ||
    fail 1 "restic could not store the backup in \`$RESTIC_REPOSITORY\`" "its message above names the cause: free space, rights, network; nothing was catalogued, run it again when that is mended"
  SNAPSHOT=$(jq -er 'select(.message_type == "summary").snapshot_id' <<<"$answer") ||
    fail 1 "restic did not name a snapshot" "it said: $answer"
  ADDED=$(jq -r .data_added <<<"$answer")
}

# verify SNAPSHOT MANIFEST: the repository is sound and the snapshot is what was staged.
verify() {
  local wrong bytes check
  bytes=$(jq .total_bytes "$2")
  if ((bytes <= READ_BACK_LIMIT)); then
    run_restic check --quiet --no-lock >"$RUN/check" 2>&1 &
    check=$!
    # By its id: a bare `wait` waits for tee, too, which waits for us.
    wrong=$(read_back "$1" "$2") || { wait "$check" || true; fail 5 "$wrong" "the backup was not catalogued; \`restic check --read-data\` examines the whole repository"; }
    wait "$check" || fail 5 "\`restic check\` found the repository damaged: $(reason <"$RUN/check")" "the backup was not catalogued; keep the repository for examination and begin another"
  else
    run_restic check --quiet --no-lock --read-data-subset=5% >"$RUN/check" 2>&1 ||
      fail 5 "\`restic check\` found the repository damaged: $(reason <"$RUN/check")" "the backup was not catalogued; keep the repository for examination and begin another"
    run_restic dump --no-lock "$1" manifest.json | cmp -s - "$2" ||
      fail 5 "the manifest in snapshot \`$1\` is not the one that was stored" "the backup was not catalogued; run it again"
  fi
}

catalogue() {
  local line
  line=$(jq -c --arg snapshot "$SNAPSHOT" '{time: (.created | fromdate), created, snapshot: $snapshot, seconds_down, bytes: .total_bytes, verified: true,
    "label": .label, files: (.files | length), media: .media_count, damaged_media: (.damaged_media | length), id}' "$STAGE/manifest.json")
  { cat "$CATALOG" 2>/dev/null || true; printf '%s\n' "$line"; } | replace_file "$CATALOG"
  replace_file "$KNOWN" <"$STAGE.known"
  # shellcheck disable=SC2034 # read by the ERR trap
  OUTCOME="the backup itself is good, snapshot \`$SNAPSHOT\`"
  rm -f "$PENDING"
}

# superseded: the catalogued snapshots that nobody needs: kept are the last 7, and the newest of each of the last 7
# days, 4 weeks and 6 months that have one, and the newest that a drill has proved. Order is the catalogue's, so a clock
# that jumped cannot drop the newest.
superseded() {
  local proved=
  if [[ -f $BACKUPS/drills.jsonl ]]; then
    proved=$(jq -R -r 'fromjson? | select(.verdict == "pass") | .snapshot // empty' "$BACKUPS/drills.jsonl")
  fi
  jq -s -r --arg proved "$proved" '
    def newest_per(f; n): [group_by(f)[] | max_by(.n)] | sort_by(-.n)[:n];
    to_entries | map(.value + {n: .key, t: .value.time}) |
    ([sort_by(-.n)[:7], newest_per(.t | strftime("%F"); 7), newest_per(.t | strftime("%G-%V"); 4), newest_per(.t | strftime("%Y-%m"); 6)]
      | add | map(.snapshot)) as $kept |
    ($proved | split("\n")) as $proved |
    # One of the two ids may be a short one.
    ([.[] | select(.snapshot as $id | $proved | any(. != "" and (startswith($id) or (. as $short | $id | startswith($short)))))]
      | max_by(.n).snapshot) as $drilled |
    .[].snapshot | select(IN($kept[], $drilled) | not)' "$CATALOG"
}

prune() {
  local old=() kept
  kept=$(superseded)
  [[ -n $kept ]] || return 0
  mapfile -t old <<<"$kept"
  printf 'snapshot %s\n' "${old[@]}" | replace_file "$PENDING"
  kept=$(jq -c --args 'select(.snapshot | IN($ARGS.positional[]) | not)' "${old[@]}" <"$CATALOG")
  replace_file "$CATALOG" <<<"$kept"
  run_restic forget --quiet --prune "${old[@]}" || fail 1 "cannot prune the repository" "the backup itself is good (snapshot \`$SNAPSHOT\`); the next run tries again"
  rm -f "$PENDING"
}

run() {
  local started=$EPOCHREALTIME
  LABEL='' OUTCOME="nothing was catalogued"
  grep -q "/$UNIT\$" /proc/self/cgroup || fail 2 "\`backup.sh run\` belongs to \`$UNIT\`" "run \`backup.sh\` without \`run\`"
  mkdir -p "$RUN"
  if [[ -f $RUN/request ]]; then
    LABEL=$(tail -n +2 "$RUN/request")
    rm -f "$RUN/request"
    # tee outlives a stop of the unit for as long as anybody has something to say.
    exec 2> >(trap '' TERM INT HUP; exec tee -p -a "$RUN/progress" >&2)
    PROGRESS_PID=$!
  fi
  trap on_exit EXIT
  # Whatever command failed, its exit code is not one of the kit's.
  trap '((BASHPID == $$)) || exit 1; fail 1 "step \`$STEP\` failed in line $LINENO" "see the message above; $OUTCOME"' ERR

  step lock
  # Held by restore.sh and by an upgrade too: nobody replaces the data while it is copied.
  lock backup
  # An earlier run cannot be alive now, so this is what one left that was killed.
  rm -rf "$STAGE" "$STAGE".*
  mkdir -p "$STAGING" "$BACKUPS"
  ID=$(date -u +%Y%m%dT%H%M%SZ)-$(od -An -N4 -tx4 /dev/urandom | tr -d ' ')
  step preflight
  preflight
  step prelink
  prelink
  collect_site
  # The moment this backup stands for.
  CREATED=$(date -u +%Y-%m-%dT%H:%M:%SZ)
  step stop
  stop_conduit
  step delta
  delta
  step start
  start_again
  # The users' server first, from here on.
  renice -n 15 $$ >/dev/null
  ionice -c 3 -p $$ 2>/dev/null || true
  step verify-staging
  verify_staging
  step manifest
  write_manifest
  step archive
  archive
  step verify
  verify "$SNAPSHOT" "$STAGE/manifest.json"
  step catalog
  catalogue
  step prune
  prune
  step clean

  {
    printf 'downtime %s s\n' "$SECONDS_DOWN"
    jq -r '"files \(.files | length), of them \(.media_count) media"' "$STAGE/manifest.json"
    printf 'size %s, new in the repository %s\n' "$(human "$(jq .total_bytes "$STAGE/manifest.json")")" "$(human "$ADDED")"
    printf 'repository %s\n' "$RESTIC_REPOSITORY"
    printf 'duration %s s\n' "$(seconds_between "${started/[.,]/}" "${EPOCHREALTIME/[.,]/}")"
    printf 'snapshot %s\n' "$SNAPSHOT"
  } >"$RUN/result"
  cat "$RUN/result" # to the journal
}

# ---- questions about the catalogue --------------------------------------------------------------------------------

latest() {
  [[ -s $CATALOG ]] || fail 3 "no good backup is catalogued" "run \`backup.sh\`"
  tail -n 1 "$CATALOG" | jq -er .snapshot
}

list() {
  [[ -s $CATALOG ]] || fail 3 "no good backup is catalogued" "run \`backup.sh\`"
  jq -r '[.snapshot, .created, "\(.bytes) B", "down \(.seconds_down) s", .label] | @tsv' "$CATALOG"
}

verify_one() {
  local manifest wrong
  jq -e --arg id "$1" -s 'any(.[]; .snapshot == $id)' "$CATALOG" >/dev/null 2>&1 || fail 3 "snapshot \`$1\` is not catalogued" "\`backup.sh list\` shows what is"
  open_repository
  mkdir -p "$STAGING"
  manifest=$(mktemp "$STAGING/manifest.XXXXXX")
  # shellcheck disable=SC2064
  trap "rm -f '$manifest'" EXIT
  run_restic dump --no-lock "$1" manifest.json >"$manifest" || fail 5 "snapshot \`$1\` has no readable manifest" "use another one: \`backup.sh list\`"
  wrong=$(read_back "$1" "$manifest") || fail 5 "$wrong" "use another one: \`backup.sh list\`"
  say "snapshot $1 is whole: $(jq -r '"\(.files | length) files, \(.total_bytes) bytes, of \(.created)"' "$manifest")"
}

unlock_all() {
  # Of this machine nobody may be at it.
  lock backup
  open_repository
  run_restic unlock --quiet --remove-all || fail 3 "the repository \`$RESTIC_REPOSITORY\` cannot be opened" "see the message of restic above"
  say "the repository $RESTIC_REPOSITORY is unlocked"
}

case ${1-} in
  --help | -h) usage; exit 0 ;;
esac
need_root
case ${1-} in
  '') start_unit '' ;;
  --label)
    (($# == 2)) || fail 2 "\`--label\` takes one text" "backup.sh --label \"before the upgrade\""
    start_unit "$2"
    ;;
  run) run ;;
  ensure-running) ensure_running ;;
  latest) latest ;;
  list) list ;;
  verify)
    (($# == 2)) || fail 2 "\`verify\` takes one snapshot" "\`backup.sh list\` shows them"
    verify_one "$2"
    ;;
  unlock) unlock_all ;;
  *) fail 2 "unknown argument \`$1\`" "backup.sh --help" ;;
esac
