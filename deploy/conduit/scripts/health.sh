#!/usr/bin/env bash
# Is the site well?  One line of text, or with --json one object with every check.
# Exit code: 0 ok, 1 warning, 2 critical, 3 unknown (no site here, or a tool is missing).  The worst check decides.
set -uo pipefail # no -e: a check that fails is a result, not the end
# shellcheck source-path=SCRIPTDIR source=common.sh
source "${BASH_SOURCE[0]%/*}/common.sh"

: "${CERT_WARN_DAYS:=14}" "${CERT_CRIT_DAYS:=3}"
: "${DISK_WARN_PERCENT:=85}" "${DISK_CRIT_PERCENT:=95}"
: "${BACKUP_WARN_HOURS:=26}" "${BACKUP_CRIT_HOURS:=74}"

WORST=0
RESULTS=() # name TAB status TAB detail
WORDS=(ok warning critical unknown)
RANK=(0 1 3 2) # not knowing is worse than a warning, but must not hide what is known to be critical

# result NAME LEVEL DETAIL: records one check.
result() {
  RESULTS+=("$1"$'\t'"${WORDS[$2]}"$'\t'"$3")
  if ((RANK[$2] > RANK[WORST])); then WORST=$2; fi
}

check_unit() {
  local state
  state=$(systemctl is-active conduit.service)
  if [[ $state == active ]]; then result unit 0 "conduit.service is active"; else result unit 2 "conduit.service is ${state:-not known}"; fi
}

# get URL [CURL OPTION...]: the body, or curl's reason on standard error; every failure and every status >= 400 fails.
get() {
  local url=$1
  shift
  curl --silent --show-error --fail --noproxy '*' --connect-timeout 3 --max-time 10 "$@" "$url" 2>&1
}

# versions_ok BODY: an answer counts only when it is what the endpoint promises; an empty 200 is not.
versions_ok() { jq --exit-status '.versions | length > 0' >/dev/null 2>&1 <<<"$1"; }

check_api() {
  local body
  if body=$(get "$CONDUIT_API/_matrix/client/versions") && versions_ok "$body"; then
    result api 0 "client API answers on loopback"
  else
    result api 2 "client API on loopback: ${body:-empty answer}"
  fi
}

check_proxy() {
  local body host=matrix.$SITE port
  for port in 443 8448; do
    if body=$(get "https://$host:$port/_matrix/client/versions" --resolve "$host:$port:127.0.0.1") && versions_ok "$body"; then
      result "proxy-$port" 0 "https://$host:$port answers"
    else
      result "proxy-$port" 2 "https://$host:$port: ${body:-empty answer}"
    fi
  done
}

check_key() {
  local found expected
  expected="$SITE $(site_identity key_id) $(site_identity public_key)"
  if ! found=$(published_key); then
    result key 2 "the signing key cannot be read"
  elif [[ $found == "$expected" ]]; then
    result key 0 "signing key ${found#* } as recorded"
  else
    result key 2 "signing key is \`$found\`, site.identity says \`$expected\`"
  fi
}

check_certificate() {
  local dates start end left level=0
  dates=$(timeout 10 openssl s_client -connect 127.0.0.1:443 -servername "matrix.$SITE" </dev/null 2>/dev/null |
    openssl x509 -noout -startdate -enddate 2>/dev/null)
  start=$(sed -n 's/^notBefore=//p' <<<"$dates")
  end=$(sed -n 's/^notAfter=//p' <<<"$dates")
  if [[ -z $start || -z $end ]]; then
    result certificate 2 "no certificate for matrix.$SITE on 127.0.0.1:443"
    return
  fi
  start=$(date --date "$start" +%s) end=$(date --date "$end" +%s)
  left=$((end - EPOCHSECONDS))
  # An authority may issue for hours (a lab's does for 12); then a quarter and an eighth of its
  # life decide, for Caddy renews when a third is left.
  local life=$((end - start)) warn=$((CERT_WARN_DAYS * 86400)) crit=$((CERT_CRIT_DAYS * 86400))
  if ((warn > life / 4)); then warn=$((life / 4)); fi
  if ((crit > life / 8)); then crit=$((life / 8)); fi
  if ((left < warn)); then level=1; fi
  if ((left < crit)); then level=2; fi
  result certificate "$level" "certificate of matrix.$SITE ends in $((left / 3600)) h"
}

check_disk() {
  local space inodes level=0
  read -r space inodes < <(df --output=pcent,ipcent "$CONDUIT_ROOT/data" 2>/dev/null | tail -n 1)
  space=${space%\%} inodes=${inodes%\%}
  if [[ ! ${space-} =~ ^[0-9]+$ ]]; then
    result disk 3 "df cannot tell about $CONDUIT_ROOT/data"
    return
  fi
  if [[ ! ${inodes-} =~ ^[0-9]+$ ]]; then inodes=0; fi # btrfs and others have no fixed number
  if ((space >= DISK_WARN_PERCENT || inodes >= DISK_WARN_PERCENT)); then level=1; fi
  if ((space >= DISK_CRIT_PERCENT || inodes >= DISK_CRIT_PERCENT)); then level=2; fi
  result disk "$level" "disk $space% and inodes $inodes% used"
}

check_backup() {
  local catalog=$CONDUIT_ROOT/backups/catalog.jsonl time age level=0
  time=$(tail -n 1 "$catalog" 2>/dev/null | jq --raw-output '.time | floor' 2>/dev/null)
  if [[ ! $time =~ ^[0-9]+$ ]]; then
    result backup 1 "no backup in $catalog"
    return
  fi
  age=$(((EPOCHSECONDS - time) / 3600))
  if ((age >= BACKUP_WARN_HOURS)); then level=1; fi
  if ((age >= BACKUP_CRIT_HOURS)); then level=2; fi
  result backup "$level" "last backup $age h ago"
}

# report FORMAT: worst first for a person, everything for a machine.
report() {
  local line name status detail bad=()
  if [[ $1 == json ]]; then
    printf '%s\n' "${RESULTS[@]}" | jq --raw-input --null-input --compact-output --arg status "${WORDS[$WORST]}" --arg site "${SITE-}" \
      '{status: $status, site: $site, checks: [inputs | split("\t") | {name: .[0], status: .[1], detail: .[2]}]}'
    return
  fi
  for line in "${RESULTS[@]}"; do
    IFS=$'\t' read -r name status detail <<<"$line"
    if [[ $status != ok ]]; then bad+=("$name: $detail"); fi
  done
  if ((${#bad[@]})); then
    printf '%s: %s: ' "${SITE:-conduit}" "${WORDS[$WORST]}"
    printf '%s' "${bad[0]}"
    if ((${#bad[@]} > 1)); then printf '; %s' "${bad[@]:1}"; fi
    printf '\n'
  else
    printf '%s: ok: %s checks passed\n' "${SITE:-conduit}" "${#RESULTS[@]}"
  fi
}

FORMAT=text
case ${1-} in
  '') ;;
  --json) FORMAT=json ;;
  *)
    fail 3 "unknown argument \`$1\`" "usage: health.sh [--json]"
    ;;
esac

for tool in curl jq openssl systemctl; do
  command -v "$tool" >/dev/null || fail 3 "\`$tool\` is not installed" "apt-get install -y --no-install-recommends curl jq openssl"
done
if ! SITE=$(site_identity server_name); then
  result site 3 "no site is installed ($CONDUIT_IDENTITY is missing or unreadable)"
else
  check_unit
  check_api
  check_proxy
  check_key
  check_certificate
  check_disk
  check_backup
fi
report "$FORMAT"
exit "$WORST"
