# shellcheck shell=bash
# archive.sh: what backup.sh and restore.sh share. Sourced after common.sh, never run.
#
# A snapshot is a restic snapshot whose root holds
#   manifest.json  path, size and SHA-256 of every other file, the site's name and signing key
#   data/          Conduit's database directory: RocksDB files and media/
#   site/          what else makes the site: configuration, units, secrets, certificates, binary
#
# Exit codes are those of the whole kit (see common.sh).

readonly ROOT=$CONDUIT_ROOT
readonly DATA=$ROOT/data
# On the file system of the data directory: links and renames do not cross file systems.
readonly STAGING=$ROOT/staging
readonly BACKUPS=$ROOT/backups
# One JSON line per good backup, oldest first. What is not listed here is not a backup.
# shellcheck disable=SC2034 # used by the scripts that source this
readonly CATALOG=$BACKUPS/catalog.jsonl

# Test hook: when this root-owned file holds the name of a step, the script kills itself with
# SIGKILL as that step begins. /run belongs to root and is empty after a boot.
FAILPOINT=/run/conduit-none.failpoint

# step NAME: names the step in the journal, and dies there if the failpoint asks for it.
step() {
  # shellcheck disable=SC2034 # named in the message of an unexpected failure
  STEP=$1
  printf 'step %s\n' "$1" >&2
  if [[ -f $FAILPOINT && -O $FAILPOINT && $(<"$FAILPOINT") == "$1" ]]; then
    kill -KILL $$
  fi
}

# open_repository [REPOSITORY] [PASSWORD_FILE]: sets restic's environment. backup.env may name
# another repository (RESTIC_REPOSITORY=s3:...) and its credentials.
open_repository() {
  if [[ -f $ROOT/backup.env ]]; then
    [[ -O $ROOT/backup.env ]] \
      || fail 3 "\`$ROOT/backup.env\` is not owned by root" "run \`chown root:root $ROOT/backup.env\`; it holds credentials"
    [[ $(stat -c %a "$ROOT/backup.env") == [0-7]00 ]] \
      || fail 3 "\`$ROOT/backup.env\` can be read by others than root" "run \`chmod 600 $ROOT/backup.env\`; it holds credentials"
    set -a
    # shellcheck source=/dev/null
    source "$ROOT/backup.env"
    set +a
  fi
  RESTIC_REPOSITORY=${1:-${RESTIC_REPOSITORY:-$BACKUPS/restic}}
  RESTIC_PASSWORD_FILE=${2:-${RESTIC_PASSWORD_FILE:-$ROOT/secrets/restic-password}}
  export RESTIC_REPOSITORY RESTIC_PASSWORD_FILE RESTIC_CACHE_DIR=$BACKUPS/cache
  [[ ${STORE_PATIENCE:=300} =~ ^[1-9][0-9]{0,5}$ ]] || fail 3 "\`STORE_PATIENCE=$STORE_PATIENCE\` in \`$ROOT/backup.env\` is no number of seconds" "300 is a good one"
}

# repository_is_local: whether the repository is a directory of this machine.
repository_is_local() { [[ $RESTIC_REPOSITORY == /* ]]; }

# run_restic ARGUMENT...: a local repository gains nothing from restic's cache, which would only fill the disk. A store
# behind a network may take a request and never answer it; restic 0.14 would wait for ever.
run_restic() {
  local status=0 errors pid
  if repository_is_local; then
    restic --no-cache "$@"
    return
  fi
  exec {errors}>&2
  # In the foreground and by `exec`, so that signals reach restic itself. What this shell would say of its end goes nowhere.
  {
    (
      exec 2>&"$errors" {errors}>&-
      pid=$BASHPID
      give_up_when_stuck "$pid" </dev/null >/dev/null &
      # It would say every 16 ms how far it is, and be taken for one that gets on.
      RESTIC_PROGRESS_FPS=0.01 exec restic "$@"
    )
  } 2>/dev/null || status=$?
  exec {errors}>&-
  return "$status"
}

# give_up_when_stuck PID: kills restic once it has done next to nothing for STORE_PATIENCE seconds: neither moved 64 KiB, from
# or to disk or network, nor computed for a tenth of a second. No bound on the whole: a first upload may take days.
give_up_when_stuck() {
  local pid=$1 before=0 did fd
  for fd in "${LOCKS[@]}"; do exec {fd}>&-; done
  until timeout "$STORE_PATIENCE" tail --follow --pid="$pid" --sleep-interval=0.1 /dev/null; do
    # A hundredth of a second of its two kinds of processor time counts as 6.4 KiB.
    did=$(awk '/char:/ { n += $2 } NF > 40 { n += 6554 * ($14 + $15) } END { printf "%.0f\n", n }' "/proc/$pid"/{io,stat} 2>/dev/null) || return 0
    if ((did - before < 65536)); then
      printf 'the store moved nothing for %s s (STORE_PATIENCE): gave up\n' "$STORE_PATIENCE" >&2
      kill -KILL "$pid" || true
      return 0
    fi
    before=$did
  done
}

# reason: what restic's words on standard input come to: its last `Fatal:` line, or else the last that says something, with
# what it was trying until then.
reason() {
  awk 'NF { last = $0 } sub(/^Fatal: /, "") { fatal = $0 } sub(/ returned error, retrying after [^:]*/, "") { tried = " (" $0 ")" }
    END { print fatal ? fatal : last tried }'
}

# toml_value FILE KEY: the value of a plain `KEY = "value"` line, empty when there is none.
toml_value() { sed -n -E "s/^[[:space:]]*$2[[:space:]]*=[[:space:]]*\"([^\"]*)\".*/\1/p" "$1" | head -n 1; }

# conduit_is_up: whether systemd runs Conduit or is about to (a restart counts as running).
conduit_is_up() {
  case $(systemctl show -P ActiveState conduit.service) in
    inactive | failed) return 1 ;;
    *) return 0 ;;
  esac
}

# database_is_locked: whether a process holds RocksDB's LOCK. It is a POSIX lock, invisible to
# flock(1); the kernel lists it in /proc/locks as `... MAJOR:MINOR:INODE START END`.
database_is_locked() {
  [[ -e $DATA/LOCK && $(</proc/locks) =~ POSIX[^$'\n']*:$(stat -c %i "$DATA/LOCK")' ' ]]
}

# list_tree DIR: one line `PATH<TAB>BYTES<TAB>SHA256` per file below DIR except manifest.json, sorted. Fails when a file
# cannot be read; a pipeline would only lose its line. openssl, because it uses the processor's SHA instructions: five
# times as fast as Debian's sha256sum.
list_tree() {
  (
    cd "$1" || exit
    find . -type f ! -path ./manifest.json -printf '%P\n' | LC_ALL=C sort >"$1.names" &&
      xargs -d '\n' -r stat -c %s -- <"$1.names" >"$1.sizes" &&
      xargs -d '\n' -r openssl dgst -sha256 -r <"$1.names" >"$1.hashes" &&
      cut -c -64 "$1.hashes" | paste "$1.names" "$1.sizes" -
  )
}

# digest_manifest: the digest of a manifest on standard input, of all but the digest itself.
digest_manifest() { jq -cS 'del(.digest)' | sha256sum | cut -c -64; }

# list_manifest FILE: the same lines as list_tree, as the manifest promises them.
list_manifest() {
  jq -r '.files | to_entries[] | [.key, .value.bytes, .value.sha256] | @tsv' "$1" | LC_ALL=C sort
}

# check_database DIR: a RocksDB directory that Conduit would open as the database it was, rather
# than found a new homeserver in (create_if_missing, Conduit src/database/abstraction/rocksdb.rs:34).
# Write-ahead logs hold whatever was not flushed: Conduit never flushes at its end (rocksdb.rs:107).
check_database() {
  local dir=$1 manifest
  [[ -s $dir/IDENTITY && -s $dir/CURRENT ]] || { echo "\`CURRENT\` or \`IDENTITY\` is missing"; return 1; }
  manifest=$(<"$dir/CURRENT")
  [[ $manifest == MANIFEST-* && $manifest != */* && -s $dir/$manifest ]] \
    || { echo "\`CURRENT\` names \`$manifest\`, which is not there"; return 1; }
  compgen -G "$dir/OPTIONS-*" >/dev/null || { echo "no \`OPTIONS-*\` file"; return 1; }
  compgen -G "$dir/*.log" >/dev/null || { echo "no write-ahead log (\`*.log\`)"; return 1; }
}

# torn_media LIST: prints the media paths in a list_tree listing whose name is not the SHA-256 of
# their content (Conduit stores media as media/<2 hex>/<2 hex>/<60 hex>, service/globals/mod.rs:495).
torn_media() {
  awk -F '\t' '$1 ~ /^data\/media\// {
    name = substr($1, 12); gsub("/", "", name)
    if (name != $3) print $1
  }' "$1"
}

# check_snapshot_tree DIR: proves a restored tree against its manifest; prints what is wrong. Returns 1 when the tree is
# damaged, 2 when that could not be found out.
check_snapshot_tree() {
  local dir=$1 wrong
  [[ -f $dir/manifest.json ]] || { echo "\`manifest.json\` is missing"; return 1; }
  jq -e '(.format == 1 or .format == 2) and (.files | length > 0) and (.server_name | type == "string")
    and (.key_id | type == "string") and (.public_key | type == "string")' \
    "$dir/manifest.json" >/dev/null 2>&1 || { echo "\`manifest.json\` is not a manifest of format 1 or 2"; return 1; }
  # Format 1 had no digest.
  jq -e '.format == 1 and (has("digest") | not)' "$dir/manifest.json" >/dev/null || [[ $(jq -r .digest "$dir/manifest.json") == "$(digest_manifest <"$dir/manifest.json")" ]] \
    || { echo "\`manifest.json\` is not as it was written"; return 1; }
  wrong=$(find "$dir" ! -type f ! -type d -printf '%P\n' | head -n 3)
  [[ -z $wrong ]] || { echo "neither file nor directory: \`$wrong\`"; return 1; }
  # By size first: a giant would take for ever to be read.
  find "$dir" -type f ! -path "$dir/manifest.json" -printf '%P\t%s\n' | LC_ALL=C sort >"$dir.found" &&
    list_manifest "$dir/manifest.json" | cut -f 1,2 >"$dir.promised" || return 2
  wrong=$(LC_ALL=C comm -3 "$dir.promised" "$dir.found" | sed 's/^\t//' | cut -f 1 | LC_ALL=C sort -u | head -n 3 | paste -sd ' ')
  [[ -z $wrong ]] || { echo "not of the size that the manifest promises: \`$wrong\`"; return 1; }
  list_tree "$dir" >"$dir.found" && list_manifest "$dir/manifest.json" >"$dir.promised" || return 2
  wrong=$(LC_ALL=C comm -3 "$dir.promised" "$dir.found" | sed 's/^\t//' | cut -f 1 | LC_ALL=C sort -u | head -n 3 | paste -sd ' ')
  [[ -z $wrong ]] || { echo "not as the manifest promises: \`$wrong\`"; return 1; }
  wrong=$(LC_ALL=C comm -13 <(jq -r '.damaged_media[]' "$dir/manifest.json" | LC_ALL=C sort) \
    <(torn_media "$dir.found" | LC_ALL=C sort) | head -n 3 | paste -sd ' ')
  [[ -z $wrong ]] || { echo "media whose content is not what its name says: \`$wrong\`"; return 1; }
  check_database "$dir/data" || return 1
  jq -e -s '.[0] as $site | .[1] | [.server_name, .key_id, .public_key] == ($site | [.server_name, .key_id, .public_key])' \
    "$dir/site/site.identity" "$dir/manifest.json" >/dev/null || { echo "\`site.identity\` and the manifest name different sites"; return 1; }
  rm -f "$dir.found" "$dir.promised"
}

# read_back SNAPSHOT MANIFEST: reads every byte of the snapshot out of the repository, without
# needing disk space, and compares it with the manifest; prints what is wrong. What the cache has says nothing of the store.
read_back() {
  local snapshot=$1 manifest=$2 work wrong
  work=$(mktemp -d "$STAGING/readback.XXXXXX")
  # tar calls the command once per file, with the content on its standard input; sha256sum starts faster than openssl.
  # shellcheck disable=SC2016
  if ! run_restic dump --no-cache --no-lock --archive tar "$snapshot" / 2>"$work/error" \
    | tar --extract --file - --to-command='printf "%s\t%s\t" "${TAR_FILENAME#/}" "$TAR_SIZE"
        if [ "$TAR_SIZE" -gt 1000000 ]; then exec openssl dgst -sha256 -r; else exec sha256sum; fi' \
      >"$work/raw" 2>>"$work/error"; then
    echo "snapshot \`$snapshot\` cannot be read: $(grep -v '^tar:' "$work/error" | reason)"
    rm -rf "$work"
    return 1
  fi
  if ! sed 's/ .*$//' "$work/raw" | LC_ALL=C sort >"$work/found"; then
    rm -rf "$work"
    echo "no room in \`$STAGING\` to compare snapshot \`$snapshot\`"
    return 1
  fi
  {
    list_manifest "$manifest"
    printf 'manifest.json\t%s\t%s\n' "$(stat -c %s "$manifest")" "$(sha256sum <"$manifest" | cut -c -64)"
  } | LC_ALL=C sort >"$work/promised"
  wrong=$(LC_ALL=C comm -3 "$work/promised" "$work/found" | sed 's/^\t//' | cut -f 1 | LC_ALL=C sort -u | head -n 3 | paste -sd ' ')
  rm -rf "$work"
  [[ -z $wrong ]] || { echo "snapshot \`$snapshot\` does not hold what was backed up: \`$wrong\`"; return 1; }
}

# replace_file TARGET [MODE [OWNER]]: standard input becomes TARGET at once or not at all, also over a power cut, and never
# without the mode and owner that let Conduit read it.
replace_file() {
  local partial=$1.partial
  cat >"$partial"
  if (($# > 1)); then chmod "$2" "$partial"; fi
  if (($# > 2)); then chown "$3" "$partial"; fi
  sync "$partial"
  mv -T "$partial" "$1"
  sync "$(dirname "$1")"
}

# human BYTES: a size for people.
human() { numfmt --to=iec-i --suffix=B --format=%.1f "$1"; }
