# shellcheck shell=bash disable=SC2034 # sourced by health.sh
# The checks of health.sh.  Each is a function `check_NAME` that may take its time, prints what it measured and then one
# verdict.  None changes anything, but for the canary, which overwrites one value of its own.

SEPARATOR=$'\x1f' # not a tab: `read` takes two of those for one

# What an operator may override (in the environment, or for good in health.env).
HEALTH_ENV=$CONDUIT_ROOT/health.env
if [[ -f $HEALTH_ENV ]]; then
  [[ -O $HEALTH_ENV ]] || fail 3 "\`$HEALTH_ENV\` is not owned by root" "run \`chown root:root $HEALTH_ENV\`; it is executed"
  # shellcheck disable=SC1090
  source "$HEALTH_ENV"
fi
: "${CANARY_WARN_MS:=2000}" "${CANARY_CRIT_MS:=5000}"
: "${CERT_WARN_DAYS:=14}" "${CERT_CRIT_DAYS:=3}"
: "${DISK_WARN_PERCENT:=85}" "${DISK_CRIT_PERCENT:=95}"
: "${MEMORY_WARN_PERCENT:=85}" "${MEMORY_CRIT_PERCENT:=95}"
: "${CLOCK_WARN_SECONDS:=5}" "${CLOCK_CRIT_SECONDS:=60}"
: "${CLOCK_REFERENCE:=}" # any HTTPS server whose `Date` is to be trusted; empty: the one that issues the certificates
: "${BACKUP_WARN_HOURS:=26}" "${BACKUP_CRIT_HOURS:=74}"
: "${DRILL_WARN_DAYS:=8}" "${DRILL_CRIT_DAYS:=15}"
: "${JOURNAL_MINUTES:=10}" "${JOURNAL_WARN_ERRORS:=5}" "${JOURNAL_CRIT_ERRORS:=50}"

# In the order in which they are shown.
CHECKS=(unit api proxy-443 proxy-8448 canary federation key certificate disk memory clock backup drill journal)

describe_checks() {
  while IFS= read -r line; do printf '%s\n' "$line"; done <<'END'
unit         systemd says that conduit.service is active
api          the client API answers on loopback
proxy-443    the client API answers through Caddy on 443, with a certificate that is trusted
proxy-8448   the same on 8448, for servers that do not read .well-known
canary       what an account sends comes back by /sync, and how soon
federation   another server would find this one by its name, and the signing key of this site there
key          the running server signs with this site's key
certificate  the certificate is not about to end
disk         there is room on the disk of the data, and there are inodes
memory       the server is not about to be throttled
clock        the clock is right
backup       the last backup is not old
drill        the last rehearsed restore is not old, and was good
journal      the server does not log errors by the dozen
END
}

# ---- how a check speaks ---------------------------------------------------------------------------------------------

LEVEL=0 # of the check that runs; each has a process of its own

# verdict LEVEL DETAIL: 0 ok, 1 warning, 2 critical, 3 unknown, or `skipped`: not applicable here, and why.
verdict() {
  local detail=${2//[$'\t\n\r'$SEPARATOR]/ }
  printf 'verdict%s%s%s%s\n' "$SEPARATOR" "$1" "$SEPARATOR" "${detail//|//}" # a `|` would begin the values
}

# measure LABEL NUMBER UNIT WARNING CRITICAL [below]: prints a whole number and raises LEVEL when it lies beyond (above,
# or below) one of the thresholds.
measure() {
  local side=${6:-above} value=$2 warn=$4 crit=$5
  printf '%s\n' "value$SEPARATOR$1$SEPARATOR$value$SEPARATOR$3$SEPARATOR$warn$SEPARATOR$crit$SEPARATOR$side"
  if [[ $side == below ]]; then value=$((-value)) warn=$((-warn)) crit=$((-crit)); fi
  if ((value > crit)); then LEVEL=2; elif ((value > warn && LEVEL < 1)); then LEVEL=1; fi
}

# get URL [CURL OPTION...]: the body, or curl's reason; every failure and every status >= 400 fails.  One time for all of it:
# on a busy machine a handshake may take seconds, and the site is well.
get() {
  local url=$1
  shift
  curl --silent --show-error --fail --noproxy '*' --max-time 10 "$@" "$url" 2>&1
}

# ---- the server -----------------------------------------------------------------------------------------------------

check_unit() {
  local state deadline=$((SECONDS + 8))
  # Between two states it is for a moment: whoever starts it waits for its first answer.
  while state=$(timeout 10 systemctl is-active conduit.service); [[ $state == @(activating|reloading|deactivating) ]]; do
    if ((SECONDS >= deadline)); then break; fi
    sleep 0.1
  done
  if [[ $state == active ]]; then verdict 0 "conduit.service is active"; else verdict 2 "conduit.service is ${state:-not known}"; fi
}

# versions_ok BODY: an answer counts only when it is what the endpoint promises; an empty 200 is not.
versions_ok() { jq --exit-status '.versions | length > 0' >/dev/null 2>&1 <<<"$1"; }

check_api() {
  local body
  if body=$(get "$CONDUIT_API/_matrix/client/versions") && versions_ok "$body"; then
    verdict 0 "client API answers on loopback"
  else
    verdict 2 "client API on loopback: ${body:-empty answer}"
  fi
}

check_proxy() {
  local body host=matrix.$SITE port=$1
  if body=$(get "https://$host:$port/_matrix/client/versions" --resolve "$host:$port:127.0.0.1") && versions_ok "$body"; then
    verdict 0 "https://$host:$port answers"
  else
    verdict 2 "https://$host:$port: ${body:-empty answer}"
  fi
}
check_proxy_443() { check_proxy 443; }
check_proxy_8448() { check_proxy 8448; }

# The canary is an account without rooms and without rights.  It stores a value in its account data and waits for /sync to
# bring it.  Account data, because Conduit keeps one value of a type and removes the one before (key_value/account_data.rs):
# a message would stay in a room for ever, and each to-device message leaves the id of its transaction behind
# (to_device.rs:89).  No rooms, because each /sync leaves a token for each joined room (sync.rs:1158).
CANARY_TYPE=foundation.timmy.fleet.canary
CANARY_SESSION=$CONDUIT_ROOT/secrets/canary-session.json

# canary_asks PATH [CURL OPTION...]: sets BODY, and adds what it took to MICROS; says why not, and returns 1, where the
# answer is not 200.  The token goes to curl through a descriptor: arguments can be read by every user.
canary_asks() {
  local path=$1 answer status seconds
  shift
  answer=$(curl --silent --show-error --noproxy '*' --max-time 8 --write-out '\n%{http_code} %{time_total}' \
    --config <(jq --raw-output '"header = \"Authorization: Bearer \(.access_token)\""' "$CANARY_SESSION") "$@" "$CONDUIT_API$path" 2>&1)
  BODY=${answer%$'\n'*}
  read -r status seconds <<<"${answer##*$'\n'}"
  if [[ $seconds =~ ^[0-9]+\.[0-9]{6}$ ]]; then MICROS=$((MICROS + 10#${seconds/./})); fi
  case $status in
    200) return 0 ;;
    401 | 403) verdict 2 "the canary's session is not accepted ($status): run \`bootstrap.sh apply\`" ;;
    000) verdict 2 "${path%%\?*}: ${BODY:-no answer}" ;;
    *) verdict 2 "${path%%\?*}: status $status ${BODY:0:200}" ;;
  esac
  return 1
}

check_canary() {
  local fd user nonce since BODY MICROS=0
  if [[ ! -e $CANARY_SESSION ]]; then
    if [[ -e ${CANARY_SESSION%/*}/bootstrap-session.json ]]; then
      verdict 1 "no session: declare an account with \`role = \"canary\"\` in the manifest and run \`bootstrap.sh apply\`"
    else
      verdict skipped "no accounts yet, see bootstrap.md"
    fi
    return
  fi
  user=$(jq --exit-status --raw-output '.user_id | @uri' "$CANARY_SESSION" 2>/dev/null) || {
    verdict 3 "cannot read \`$CANARY_SESSION\`: run this as root, or \`bootstrap.sh apply\` to make it anew"
    return
  }
  # One at a time: two would overwrite each other's value.  A lock needs no right to write.
  if ! { exec {fd}<"$CANARY_SESSION" && flock --timeout 5 "$fd"; }; then
    verdict 3 "another run has not ended its own after 5 s"
    return
  fi
  canary_asks '/_matrix/client/v3/sync?timeout=0' || return
  since=$(jq --exit-status --raw-output '.next_batch' <<<"$BODY" 2>/dev/null) || {
    verdict 2 "/sync answers without \`next_batch\`: ${BODY:0:200}"
    return
  }
  nonce=$EPOCHREALTIME-$RANDOM MICROS=0
  canary_asks "/_matrix/client/v3/user/$user/account_data/$CANARY_TYPE" --request PUT --json "{\"nonce\":\"$nonce\"}" || return
  # Again and again: Conduit may answer with nothing when it is woken, and bring the value with the next answer.
  while ((MICROS <= CANARY_CRIT_MS * 1000)); do
    canary_asks "/_matrix/client/v3/sync?timeout=1000&since=$since" || return
    if jq --exit-status --arg type "$CANARY_TYPE" --arg nonce "$nonce" \
      'any(.account_data.events[]?; .type == $type and .content.nonce == $nonce)' >/dev/null 2>&1 <<<"$BODY"; then
      measure canary $((MICROS / 1000)) ms "$CANARY_WARN_MS" "$CANARY_CRIT_MS"
      verdict "$LEVEL" "sent and seen within $((MICROS / 1000)) ms"
      return
    fi
    since=$(jq --raw-output '.next_batch' <<<"$BODY")
  done
  measure canary $((MICROS / 1000)) ms "$CANARY_WARN_MS" "$CANARY_CRIT_MS"
  verdict 2 "sent, and not seen after $((MICROS / 1000)) ms"
}

expected_key() { printf '%s %s %s' "$SITE" "$(site_identity key_id)" "$(site_identity public_key)"; }

# As another server would go about it (specification: server-server, "Server discovery"), by the public names.
check_federation() {
  local body server url found
  url=https://$SITE/.well-known/matrix/server
  if ! body=$(get "$url" --location --proto-redir =https); then
    verdict 2 "$url: $body"
    return
  fi
  server=$(jq --raw-output '.["m.server"] // empty' 2>/dev/null <<<"$body")
  if [[ ! $server =~ ^[A-Za-z0-9.-]+(:[0-9]+)?$ ]]; then
    verdict 2 "$url names no server: ${body:0:100}"
    return
  fi
  # Without a port an SRV record would be asked for first; ours never is without.
  if [[ $server != *:* ]]; then server+=:8448; fi
  url=https://$server/_matrix/key/v2/server
  if ! body=$(get "$url"); then
    verdict 2 "$url: $body"
  elif ! found=$(key_in "$body"); then
    verdict 2 "$url publishes no key: ${body:0:100}"
  elif [[ $found != "$(expected_key)" ]]; then
    verdict 2 "$url publishes \`$found\`, site.identity says \`$(expected_key)\`"
  elif ! jq --exit-status --argjson now "$EPOCHSECONDS" '.valid_until_ts / 1000 > $now' >/dev/null <<<"$body"; then
    verdict 2 "$url publishes a key that is no longer valid"
  else
    verdict 0 "found at $server, with the key of this site"
  fi
}

check_key() {
  local body found
  if ! body=$(get "$CONDUIT_API/_matrix/key/v2/server") || ! found=$(key_in "$body"); then
    verdict 2 "the signing key cannot be read: ${body:0:100}"
  elif [[ $found == "$(expected_key)" ]]; then
    verdict 0 "signing key ${found#* } as recorded"
  else
    verdict 2 "signing key is \`$found\`, site.identity says \`$(expected_key)\`"
  fi
}

check_certificate() {
  local dates start end left
  dates=$(timeout 10 openssl s_client -connect 127.0.0.1:443 -servername "matrix.$SITE" </dev/null 2>/dev/null |
    openssl x509 -noout -startdate -enddate 2>/dev/null)
  start=$(sed -n 's/^notBefore=//p' <<<"$dates")
  end=$(sed -n 's/^notAfter=//p' <<<"$dates")
  if [[ -z $start || -z $end ]]; then
    verdict 2 "no certificate for matrix.$SITE on 127.0.0.1:443"
    return
  fi
  start=$(date --date "$start" +%s) end=$(date --date "$end" +%s)
  left=$((end - EPOCHSECONDS))
  # An authority may issue for hours (a lab's does for 12); then a quarter and an eighth of its
  # life decide, for Caddy renews when a third is left.
  local life=$((end - start)) warn=$((CERT_WARN_DAYS * 86400)) crit=$((CERT_CRIT_DAYS * 86400))
  if ((warn > life / 4)); then warn=$((life / 4)); fi
  if ((crit > life / 8)); then crit=$((life / 8)); fi
  measure certificate "$left" s "$warn" "$crit" below
  verdict "$LEVEL" "certificate of matrix.$SITE ends in $((left / 3600)) h"
}

# ---- the machine ----------------------------------------------------------------------------------------------------

check_disk() {
  local space inodes
  read -r space inodes < <(df --output=pcent,ipcent "$CONDUIT_ROOT/data" 2>/dev/null | tail -n 1)
  space=${space%\%} inodes=${inodes%\%}
  if [[ ! ${space-} =~ ^[0-9]+$ ]]; then
    verdict 3 "df cannot tell about $CONDUIT_ROOT/data"
    return
  fi
  if [[ ! ${inodes-} =~ ^[0-9]+$ ]]; then inodes=0; fi # btrfs and others have no fixed number
  measure disk "$space" % "$DISK_WARN_PERCENT" "$DISK_CRIT_PERCENT"
  measure inodes "$inodes" % "$DISK_WARN_PERCENT" "$DISK_CRIT_PERCENT"
  verdict "$LEVEL" "disk $space% and inodes $inodes% used"
}

# What the server itself holds, without the page cache, which the kernel takes back by itself.
check_memory() {
  local line pid=0 high=infinity max=infinity resident
  while IFS= read -r line; do
    case $line in
      MainPID=*) pid=${line#*=} ;;
      MemoryHigh=*) high=${line#*=} ;;
      MemoryMax=*) max=${line#*=} ;;
    esac
  done < <(timeout 10 systemctl show --property=MainPID,MemoryHigh,MemoryMax conduit.service)
  if [[ $high == infinity ]]; then high=$max; fi
  resident=$(sed -n 's/^VmRSS:[^0-9]*\([0-9]*\) kB$/\1/p' "/proc/$pid/status" 2>/dev/null)
  if [[ ! $resident =~ ^[0-9]+$ ]]; then
    verdict skipped "no process of conduit.service to look at"
  elif [[ ! $high =~ ^[0-9]+$ ]]; then
    verdict skipped "conduit.service has no limit of memory"
  else
    measure memory $((resident * 1024 * 100 / high)) % "$MEMORY_WARN_PERCENT" "$MEMORY_CRIT_PERCENT"
    verdict "$LEVEL" "$((resident / 1024)) MiB of $((high / 1048576)) MiB in use"
  fi
}

# acme_directory: who issues this site's certificates, as caddy.service has it (see the Caddyfile).
acme_directory() {
  local line file
  while IFS= read -r line; do
    if [[ $line =~ ^EnvironmentFiles=([^ ]+) ]]; then
      file=${BASH_REMATCH[1]}
      line="Environment=$(grep --no-messages '^ACME_CA=' "$file" | tail -n 1)"
    fi
    if [[ $line =~ ^Environment=(.* )?[\'\"]?ACME_CA=[\'\"]?([^\ \'\"]+) ]]; then
      printf '%s' "${BASH_REMATCH[2]}"
      return
    fi
  done < <(timeout 10 systemctl show --property=Environment,EnvironmentFiles caddy.service)
  printf 'https://acme-v02.api.letsencrypt.org/directory'
}

# A wrong clock makes signatures and certificates invalid.  The `Date` of an HTTPS server has whole seconds and is stamped
# between our question and its answer: what lies within both is no difference.
check_clock() {
  local reference before after said date skew=0
  reference=${CLOCK_REFERENCE:-$(acme_directory)}
  before=$EPOCHSECONDS
  said=$(curl --silent --show-error --output /dev/null --write-out '%header{date}' --max-time 8 \
    --retry 1 "$reference" 2>&1)
  after=$EPOCHSECONDS
  # (A retry may have drawn the two apart; then less is certain, and nothing is said that is not.)
  if date=$(date --date "${said:-nothing}" +%s 2>/dev/null); then
    if ((before > date + 1)); then skew=$((before - date - 1)); elif ((date > after)); then skew=$((after - date)); fi
    measure clock "${skew#-}" s "$CLOCK_WARN_SECONDS" "$CLOCK_CRIT_SECONDS"
    verdict "$LEVEL" "$skew s from $reference"
  elif [[ $(timeout 5 timedatectl show --property=NTPSynchronized --value 2>/dev/null) == yes ]]; then
    verdict 0 "synchronised, as the kernel says; $reference does not tell: $said"
  else
    # Somebody else's server being away is not unknown enough to wake anybody.
    verdict 1 "not synchronised, as the kernel says; $reference does not tell: ${said:-no Date}"
  fi
}

# ---- what must happen from time to time -----------------------------------------------------------------------------

# installed_at: when this machine became a site.  The password of the backups is made then, and never written again.
installed_at() { stat --format=%Y "$CONDUIT_ROOT/secrets/restic-password" 2>/dev/null; }

check_backup() {
  local catalog=$CONDUIT_ROOT/backups/catalog.jsonl time what=backup
  time=$(tail -n 1 "$catalog" 2>/dev/null | jq --raw-output '.time | floor' 2>/dev/null)
  if [[ ! $time =~ ^[0-9]+$ ]]; then
    what="no backup in $catalog; installation"
    time=$(installed_at) || {
      verdict 3 "no backup in $catalog, and \`secrets/restic-password\`, without which there can be none, cannot be read"
      return
    }
  fi
  measure backup $((EPOCHSECONDS - time)) s $((BACKUP_WARN_HOURS * 3600)) $((BACKUP_CRIT_HOURS * 3600))
  verdict "$LEVEL" "$what $(((EPOCHSECONDS - time) / 3600)) h ago"
}

# A drill restores the newest backup in a closed place and adds a line to drills.jsonl: `{"time": SECONDS, "verdict": "pass"}`,
# or `"fail"`; other members are its own affair.
check_drill() {
  local drills=$CONDUIT_ROOT/backups/drills.jsonl last good what=drill
  last=$(tail -n 1 "$drills" 2>/dev/null | jq --raw-output '.verdict' 2>/dev/null)
  good=$(tail -n 1000 "$drills" 2>/dev/null | jq --raw-input --raw-output 'fromjson? | select(.verdict == "pass") | .time | floor' 2>/dev/null | tail -n 1)
  if [[ ! $good =~ ^[0-9]+$ ]]; then
    what="no good drill in $drills; installation"
    good=$(installed_at) || {
      verdict 3 "no good drill in $drills, and nothing tells when this was installed"
      return
    }
  fi
  measure drill $((EPOCHSECONDS - good)) s $((DRILL_WARN_DAYS * 86400)) $((DRILL_CRIT_DAYS * 86400))
  if [[ -s $drills && $last != pass ]]; then
    verdict 2 "the last drill did not pass (\`${last:-unreadable}\`); $what $(((EPOCHSECONDS - good) / 86400)) days ago"
  else
    verdict "$LEVEL" "$what $(((EPOCHSECONDS - good) / 86400)) days ago"
  fi
}

# Conduit logs warnings about others (a partner that is away) and errors about itself; panics come without a level.  What
# ruma_wrapper::axum calls an error is a request that nobody could read: any stranger can send one.
check_journal() {
  local found
  found=$(timeout 15 journalctl --unit=conduit.service --since="-$JOURNAL_MINUTES min" --output=cat --no-pager --quiet 2>/dev/null |
    awk '($2 == "ERROR" && $3 !~ /ruma_wrapper::axum/) || / panicked at / { n++; last = $0 } END { print n + 0, substr(last, 1, 160) }') || {
    verdict 3 "the journal of conduit.service cannot be read"
    return
  }
  measure journal "${found%% *}" c "$JOURNAL_WARN_ERRORS" "$JOURNAL_CRIT_ERRORS"
  if ((${found%% *})); then
    verdict "$LEVEL" "${found%% *} errors in $JOURNAL_MINUTES minutes, the last: ${found#* }"
  else
    verdict 0 "no errors in $JOURNAL_MINUTES minutes"
  fi
}
