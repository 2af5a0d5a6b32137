# shellcheck shell=bash disable=SC2034 # sourced by install.sh: variables are shared with its other parts
# What must hold before anything is changed.  Every refusal names what is in the way and what to do (exit 3).

TOOLS=(caddy:caddy curl:curl jq:jq restic:restic openssl:openssl ss:iproute2 flock:util-linux setpriv:util-linux systemd-sysusers:systemd)
# A first start needs little; a homeserver that fills the disk of its neighbours does not.
: "${CONDUIT_MIN_FREE_MB:=1024}" "${CONDUIT_MIN_FREE_INODES:=10000}"

check_machine() {
  need_root
  [[ -d /run/systemd/system ]] || fail 3 "systemd is not process 1 here" "the kit is for a Debian 12 host with systemd"
  local pair missing=()
  for pair in "${TOOLS[@]}"; do
    type -P "${pair%%:*}" >/dev/null || missing+=("${pair#*:}")
  done
  if ((${#missing[@]})); then
    fail 3 "missing tools: ${missing[*]}" "apt-get install -y --no-install-recommends ${missing[*]}"
  fi
  [[ -f /etc/caddy/Caddyfile ]] || fail 3 "there is no \`/etc/caddy/Caddyfile\`" "is Caddy installed from the package? an empty file will do"
}

check_name() {
  local label='[a-z0-9]([a-z0-9-]*[a-z0-9])?' known
  [[ $SERVER_NAME =~ ^$label(\.$label)+$ && ${#SERVER_NAME} -le 230 ]] || fail 2 "\`$SERVER_NAME\` is not a domain name" \
    "a lower-case name without port and scheme, e.g. \`--server-name timmy.foundation\`"
  if known=$(site_identity server_name) && [[ $known != "$SERVER_NAME" ]]; then
    fail 3 "this host serves \`$known\`, not \`$SERVER_NAME\`" "a server name is permanent; use another host, or \`uninstall --purge --yes\` first"
  fi
}

# check_site: an existing site must still have its data.
check_site() {
  [[ -e $ROOT/site.identity ]] || return 0
  if [[ -n $RECOVERED ]] && $DRY_RUN; then return; fi # the data that counts is still in the snapshot
  [[ -s $ROOT/data/CURRENT && -s $ROOT/data/IDENTITY ]] || fail 3 \
    "\`$ROOT/site.identity\` says that \`$SERVER_NAME\` lives here, but \`$ROOT/data\` holds no database" \
    "restore a backup (restore.md); starting would make a new homeserver with another signing key"
  local installed
  installed=$(site_identity installed_version) || return 0
  if [[ $installed != "$VERSION" && $(printf '%s\n' "$installed" "$VERSION" | sort --version-sort | tail -n 1) == "$installed" ]]; then
    fail 3 "refusing to downgrade from \`$installed\` to \`$VERSION\`" "an older Conduit panics on a newer database; restore a backup made by \`$VERSION\` instead (restore.md)"
  fi
}

# listener DETAILS: who that is, in REPLY: a program and its process, else its unit, else its user.  ss cannot always see
# the process (in a container, or in another one), but the kernel always knows the unit's control group.
listener() {
  if [[ $1 =~ \(\(\"([^\"]+)\",pid=([0-9]+) ]]; then REPLY="${BASH_REMATCH[1]} (pid ${BASH_REMATCH[2]})"
  elif [[ $1 =~ cgroup:[^\ ]*/([^/\ ]+)\  ]]; then REPLY=${BASH_REMATCH[1]}
  elif [[ $1 =~ uid:([0-9]+) ]]; then REPLY="a process of uid ${BASH_REMATCH[1]}"
  else REPLY="a process that \`ss\` cannot name"; fi
}

# belongs_to UNIT DETAILS: does this listener belong to our unit?
belongs_to() {
  local pid=${UNIT[$1.MainPID]-0}
  [[ ${UNIT[$1.ActiveState]-} == @(active|activating|reloading) ]] || return 1
  [[ "$2 " == *"pid=$pid,"* || "$2 " == *"/$1 "* ]]
}

# check_ports: who listens where we (or Caddy for us) must.
check_ports() {
  local proto local_address details port
  while read -r proto _ _ _ local_address _ details; do
    port=${local_address##*:}
    listener "$details "
    case $proto:$port in
      tcp:6167)
        belongs_to conduit.service "$details" ||
          fail 3 "port 6167 is taken by \`$REPLY\`, Conduit needs it" "stop that program, or move it to another port"
        ;;
      tcp:80 | tcp:443 | tcp:8448 | udp:443 | udp:8448)
        belongs_to caddy.service "$details" ||
          fail 3 "port $port/$proto is taken by \`$REPLY\`, Caddy needs it" "stop that program, or move its sites into Caddy (/etc/caddy/conf.d/)"
        ;;
    esac
  done < <(ss --no-header --numeric --listening --processes --extended --cgroup --tcp --udp)
}

# check_disk: on the file system of the site, or where it will be.
check_disk() {
  local where=$ROOT megabytes inodes total need=$CONDUIT_MIN_FREE_MB
  while [[ ! -d $where ]]; do where=${where%/*}; where=${where:-/}; done
  read -r megabytes inodes total < <(df --block-size=1M --output=avail,iavail,itotal "$where" | tail -n 1)
  if [[ -e $ROOT/site.identity ]]; then need=$((need / 4)); fi # room for one more release, not for a site
  ((megabytes >= need)) || fail 3 "only $megabytes MB free on the file system of \`$where\`, $need MB are needed" "make room, or mount a larger volume there"
  # A file system without a fixed number of inodes says 0 or `-`.
  if [[ $total =~ ^[0-9]+$ ]] && ((total > 0 && inodes < CONDUIT_MIN_FREE_INODES)); then
    fail 3 "only $inodes inodes free on the file system of \`$where\`, $CONDUIT_MIN_FREE_INODES are needed" "remove small files, or mount another volume there"
  fi
}
