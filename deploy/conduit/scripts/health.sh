#!/usr/bin/env bash
# Is the site well?  Asks all checks (health-checks.sh) side by side and says what came of it.
#
#   health.sh [--json] [--only CHECK[,CHECK...]] [--textfile FILE | --node-exporter]
#   health.sh --list        the checks, one a line
#
#   --json           one object instead of one line of text
#   --only           these checks and no others
#   --textfile FILE  writes the same for Prometheus, too: to a new file that is renamed to FILE
#   --node-exporter  the same, into the node exporter's directory where that exists
#
# Exit code, as monitoring plugins have it: 0 ok, 1 warning, 2 critical, 3 unknown (no site here, a tool is missing, or this
# cannot be told).  The worst check decides.  After `|` stand the measured values, again as monitoring plugins have them.
# Thresholds are in health-checks.sh; /opt/conduit/health.env overrides them.  deploy/runbooks/health.md explains each check.
set -uo pipefail # no -e: a check that fails is a result, not the end
export LC_ALL=C  # a decimal point is a point
# shellcheck source-path=SCRIPTDIR source=common.sh
source "${BASH_SOURCE[0]%/*}/common.sh"
# shellcheck source-path=SCRIPTDIR source=health-checks.sh
source "${BASH_SOURCE[0]%/*}/health-checks.sh"

# A check that has not answered by then is critical; below TimeoutStartSec of the unit.
: "${HEALTH_SECONDS:=40}"
: "${NODE_EXPORTER:=/var/lib/prometheus/node-exporter}"

WORDS=(ok warning critical unknown)
RANK=(0 1 3 2) # not knowing is worse than a warning, but must not hide what is known to be critical
WORST=0
BEGAN=${EPOCHREALTIME/./}
SITE='' # its server name
declare -A LEVEL_OF=() DETAIL_OF=() # check -> 0..3 or `skipped`; check -> what a person reads
VALUES=() # CHECK LABEL NUMBER UNIT WARNING CRITICAL SIDE, separated by $SEPARATOR

# note_result CHECK LEVEL DETAIL
note_result() {
  LEVEL_OF[$1]=$2 DETAIL_OF[$1]=$3
  if [[ $2 != skipped ]] && ((RANK[$2] > RANK[WORST])); then WORST=$2; fi
}

# run_checks CHECK...: all at once, each in a process of its own that writes into a pipe; a time for all of them.
run_checks() {
  local name fd left line deadline=$((BEGAN + HEALTH_SECONDS * 1000000))
  local -A pipe=() pid=()
  for name in "$@"; do
    exec {fd}< <("check_${name//-/_}")
    pipe[$name]=$fd pid[$name]=$!
  done
  for name in "$@"; do
    fd=${pipe[$name]}
    while :; do
      left=$((deadline - ${EPOCHREALTIME/./}))
      if ((left < 10000)); then left=10000; fi
      printf -v left '%d.%06d' $((left / 1000000)) $((left % 1000000))
      if IFS= read -r -t "$left" line <&"$fd"; then
        take_line "$name" "$line"
      elif (($? > 128)); then
        note_result "$name" 2 "this check has not ended after $HEALTH_SECONDS s"
        kill "${pid[$name]}" 2>/dev/null
        break
      else
        if [[ -z ${LEVEL_OF[$name]-} ]]; then note_result "$name" 3 "this check ended without a verdict"; fi
        break
      fi
    done
    exec {fd}<&-
  done
}

# take_line CHECK LINE: what `verdict` and `measure` of health-checks.sh print.
take_line() {
  local kind rest
  IFS=$SEPARATOR read -r kind rest <<<"$2"
  case $kind in
    verdict) note_result "$1" "${rest%%"$SEPARATOR"*}" "${rest#*"$SEPARATOR"}" ;;
    value) VALUES+=("$1$SEPARATOR$rest") ;;
  esac
}

# at_work: does a backup, a restore, a bootstrap or an upgrade of ours hold its lock?  It has the server away for a moment, and
# that is no illness.  (Asked only when something is critical: a lock that is tried is held for an instant.)
at_work() {
  local name
  for name in backup data install; do
    if [[ -e /run/lock/conduit-$name ]] && ! flock --shared --nonblock "/run/lock/conduit-$name" true; then return 0; fi
  done
  return 1
}

# ---- what came of it, in three forms --------------------------------------------------------------------------------

report_text() {
  local level name passed=0 bad=() skipped=() perfdata=() text label number unit warn crit side
  for level in 2 3 1; do # worst first
    for name in "${ASKED[@]}"; do
      if [[ ${LEVEL_OF[$name]} == "$level" ]]; then bad+=("$name: ${DETAIL_OF[$name]}"); fi
    done
  done
  for name in "${ASKED[@]}"; do
    case ${LEVEL_OF[$name]} in
      0) ((++passed)) ;;
      skipped) skipped+=("$name skipped: ${DETAIL_OF[$name]}") ;;
    esac
  done
  text="$passed checks passed"
  if ((passed == 1)); then text="1 check passed"; fi
  if ((${#bad[@]})); then
    printf -v text '%s; ' "${bad[@]}"
    text=${text%; }
  fi
  if ((${#skipped[@]})); then
    printf -v name '%s; ' "${skipped[@]}"
    text+=" (${name%; })"
  fi
  for name in "${VALUES[@]}"; do
    IFS=$SEPARATOR read -r _ label number unit warn crit side <<<"$name"
    if [[ $side == below ]]; then warn+=: crit+=:; fi # a range that begins there
    perfdata+=("$label=$number$unit;$warn;$crit")
  done
  printf '%s: %s: %s%s\n' "${SITE:-conduit}" "${WORDS[$WORST]}" "$text" "${perfdata[*]:+ | ${perfdata[*]}}"
}

report_json() {
  local name word results=()
  for name in "${ASKED[@]}"; do
    word=${LEVEL_OF[$name]}
    if [[ $word != skipped ]]; then word=${WORDS[$word]}; fi
    results+=("$name$SEPARATOR$word$SEPARATOR${DETAIL_OF[$name]}")
  done
  printf '%s\n' "${results[@]}" "${VALUES[@]}" |
    jq --raw-input --null-input --compact-output --arg status "${WORDS[$WORST]}" --arg site "$SITE" --arg separator "$SEPARATOR" \
      --argjson time "$((BEGAN / 1000000))" --argjson ms "$(((${EPOCHREALTIME/./} - BEGAN) / 1000))" '
      [inputs | split($separator)] as $lines
      | [$lines[] | select(length == 7) | {check: .[0], name: .[1], value: (.[2] | tonumber), unit: .[3],
          warning: (.[4] | tonumber), critical: (.[5] | tonumber), bad: .[6]}] as $values
      | {status: $status, site: $site, time: $time, seconds: ($ms / 1000),
          checks: [$lines[] | select(length == 3) | . as [$name, $status, $detail]
            | {name: $name, status: $status, detail: $detail, values: [$values[] | select(.check == $name) | del(.check)]}]}'
}

report_prometheus() {
  local name label number unit warn crit labels
  local -A units=([ms]=milliseconds [s]=seconds [%]=percent [c]=count)
  family() { printf '# HELP conduit_health_%s %s\n# TYPE conduit_health_%s gauge\n' "$1" "$2" "$1"; }
  family status 'Result of a check: 0 ok, 1 warning, 2 critical, 3 unknown. A check that was skipped is absent.'
  for name in "${ASKED[@]}"; do
    if [[ ${LEVEL_OF[$name]} != skipped ]]; then
      printf 'conduit_health_status{site="%s",check="%s"} %s\n' "$SITE" "$name" "${LEVEL_OF[$name]}"
    fi
  done
  family value 'What a check measured.'
  for name in "${VALUES[@]}"; do
    IFS=$SEPARATOR read -r name label number unit warn crit _ <<<"$name"
    labels="site=\"$SITE\",check=\"$name\",name=\"$label\",unit=\"${units[$unit]}\""
    printf 'conduit_health_value{%s} %s\n' "$labels" "$number"
  done
  family threshold 'Beyond which value a check warns or is critical.'
  for name in "${VALUES[@]}"; do
    IFS=$SEPARATOR read -r name label number unit warn crit _ <<<"$name"
    labels="site=\"$SITE\",check=\"$name\",name=\"$label\",unit=\"${units[$unit]}\""
    printf 'conduit_health_threshold{%s,severity="%s"} %s\n' "$labels" warning "$warn" "$labels" critical "$crit"
  done
  family overall 'The worst of all checks, as the exit code of health.sh.'
  printf 'conduit_health_overall{site="%s"} %s\n' "$SITE" "$WORST"
  family run_timestamp_seconds 'When this was found out. Alert on its age: a timer that stopped finds nothing.'
  printf 'conduit_health_run_timestamp_seconds{site="%s"} %s\n' "$SITE" "$((BEGAN / 1000000))"
  name=$((${EPOCHREALTIME/./} - BEGAN))
  family run_duration_seconds 'How long it took to find out.'
  printf 'conduit_health_run_duration_seconds{site="%s"} %d.%06d\n' "$SITE" $((name / 1000000)) $((name % 1000000))
}

# write_textfile FILE: whole or not at all; the exporter reads names that end with .prom only.
write_textfile() {
  local new=$1.new~
  if ! { report_prometheus >"$new" && chmod 0644 "$new" && mv --force --no-target-directory "$new" "$1"; }; then
    rm --force "$new"
    note "cannot write \`$1\`: does its directory exist, and is there room?"
    if ((RANK[3] > RANK[WORST])); then WORST=3; fi
  fi
}

# ---- command line ---------------------------------------------------------------------------------------------------

FORMAT=text TEXTFILE='' ASKED=("${CHECKS[@]}")
usage() { sed -n '4,5s/^# *//p' "${BASH_SOURCE[0]}"; }
while (($#)); do
  case $1 in
    --json) FORMAT=json ;;
    --list)
      describe_checks
      exit 0
      ;;
    --only | --textfile)
      [[ -n ${2-} ]] || fail 3 "\`$1\` needs a value" "usage: $(usage)"
      if [[ $1 == --only ]]; then IFS=, read -r -a ASKED <<<"$2"; else TEXTFILE=$2; fi
      shift
      ;;
    --node-exporter) if [[ -d $NODE_EXPORTER ]]; then TEXTFILE=$NODE_EXPORTER/conduit.prom; fi ;;
    *) fail 3 "unknown argument \`$1\`" "usage: $(usage)" ;;
  esac
  shift
done
for name in "${ASKED[@]}"; do
  [[ " ${CHECKS[*]} " == *" $name "* ]] || fail 3 "there is no check \`$name\`" "\`health.sh --list\` names them: ${CHECKS[*]}"
done
for tool in curl flock jq openssl systemctl; do
  command -v "$tool" >/dev/null || fail 3 "\`$tool\` is not installed" "apt-get install -y --no-install-recommends curl jq openssl util-linux"
done

if ! SITE=$(site_identity server_name); then
  ASKED=(site)
  note_result site 3 "no site is installed ($CONDUIT_IDENTITY is missing or unreadable)"
else
  run_checks "${ASKED[@]}"
  if ((WORST == 2)) && at_work && wait_healthy 15 2>/dev/null; then
    WORST=0 LEVEL_OF=() DETAIL_OF=() VALUES=()
    run_checks "${ASKED[@]}"
  fi
fi
if [[ -n $TEXTFILE ]]; then write_textfile "$TEXTFILE"; fi
if [[ $FORMAT == json ]]; then report_json; else report_text; fi
exit "$WORST"
