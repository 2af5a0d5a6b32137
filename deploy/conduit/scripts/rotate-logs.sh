#!/usr/bin/env bash
# Trims RocksDB's old information logs (LOG.old.<microseconds>) in the data directory; the newest KEEP stay.
#   rotate-logs.sh [--dry-run] [--keep N] [--vacuum-journal SIZE]
# Never `*.log`: those are the write-ahead log, that is the newest messages themselves.
# Conduit's own log is in the journal, which limits itself (SystemMaxUse= in journald.conf) and cannot be trimmed for one
# unit alone; --vacuum-journal 500M trims that of the whole machine, on demand only.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=common.sh
source "${BASH_SOURCE[0]%/*}/common.sh"

KEEP=5 DRY_RUN=false VACUUM=
usage="usage: rotate-logs.sh [--dry-run] [--keep N] [--vacuum-journal SIZE]"
while (($#)); do
  case $1 in
    --dry-run) DRY_RUN=true ;;
    --keep) KEEP=${2-} && shift ;;
    --vacuum-journal) VACUUM=${2-} && shift ;;
    --help | -h) say "$usage" && exit 0 ;;
    *) fail 2 "unknown argument \`$1\`" "$usage" ;;
  esac
  shift || fail 2 "an argument lacks its value" "$usage"
done
[[ $KEEP =~ ^[0-9]+$ ]] || fail 2 "\`--keep $KEEP\` is not a number" "$usage"

# old_logs: the candidates, oldest first.  The pattern is anchored and the type asked: nothing else can match.
old_logs() {
  find "$CONDUIT_ROOT/data" -maxdepth 1 -type f -regextype posix-extended -regex '.*/LOG\.old\.[0-9]+' -printf '%f\n' |
    sort --field-separator=. --key=3,3n
}

[[ -d $CONDUIT_ROOT/data ]] || fail 3 "no data directory \`$CONDUIT_ROOT/data\`" "is the site installed?"
mapfile -t logs < <(old_logs)
count=$((${#logs[@]} > KEEP ? ${#logs[@]} - KEEP : 0))
for file in "${logs[@]:0:count}"; do
  say "remove  $CONDUIT_ROOT/data/$file"
  $DRY_RUN || rm -- "$CONDUIT_ROOT/data/$file"
done
if $DRY_RUN; then say "would remove $count files"; else say "removed $count files"; fi
if [[ -n $VACUUM ]] && ! $DRY_RUN; then
  need_root
  journalctl --quiet --vacuum-size="$VACUUM"
fi
