#!/usr/bin/env bash
# One-command installer of the Conduit homeserver behind Caddy (Debian 12).  What it does is printed, one line per change;
# `--dry-run` prints the same lines and changes nothing; a second run makes no change.  See deploy/runbooks/install.md.
set -Eeuo pipefail
shopt -s inherit_errexit nullglob extglob
umask 022

HERE=$(cd "${BASH_SOURCE[0]%/*}" && pwd)
# shellcheck source-path=SCRIPTDIR source=scripts/common.sh
source "$HERE/scripts/common.sh"
ROOT=$CONDUIT_ROOT
# shellcheck source-path=SCRIPTDIR source=install.d/engine.sh
source "$HERE/install.d/engine.sh"
# shellcheck source-path=SCRIPTDIR source=install.d/source.sh
source "$HERE/install.d/source.sh"
# shellcheck source-path=SCRIPTDIR source=install.d/preflight.sh
source "$HERE/install.d/preflight.sh"
# shellcheck source-path=SCRIPTDIR source=install.d/server.sh
source "$HERE/install.d/server.sh"
# shellcheck source-path=SCRIPTDIR source=install.d/caddy.sh
source "$HERE/install.d/caddy.sh"

USAGE="usage: install.sh [install|upgrade|status|uninstall] [OPTION...]

  install               bring this host to an installed site (the default); with another binary it upgrades
  upgrade               the same, but refuses where no site exists
  status                say what is installed and whether it runs (0 yes, 1 no)
  uninstall             remove the kit; data, secrets, backups, conduit.toml and site.identity stay

  --bundle DIR          take conduit and the fleet-* tools from DIR, checked against DIR/SHA256SUMS
  --binary FILE         take this conduit; its SHA-256 must be the pinned one or --sha256
  --url URL             download from here instead of the pinned release (needs --sha256)
  --sha256 HEX          the expected SHA-256 of the binary
  --version X           the expected version (default $PINNED_VERSION)
  --server-name NAME    the Matrix server name (default: the installed site's, else timmy.foundation)
  --apex here|elsewhere who answers the apex's /.well-known/matrix: this Caddy (the default) or another host
  --no-start            install without starting anything (a restore follows)
  --no-backup           upgrade without a backup before
  --purge --yes         uninstall: remove data, secrets and backups too, for good
  --dry-run             print what would be done

exit: 0 done, 1 failed, 2 usage, 3 refused (nothing changed), 4 rolled back, 75 another run is at it"

COMMAND=install BUNDLE='' BINARY='' URL='' SHA256='' VERSION=$PINNED_VERSION SERVER_NAME='' RELEASE=''
DRY_RUN=false PURGE=false YES=false NO_BACKUP=false APEX='' NO_START=false
UNIT_DIR=/etc/systemd/system
UNITS=() TIMERS=()
declare -A STATE=() # install.state: what a later run must know of this one

parse() {
  local usage_hint="install.sh --help lists the options"
  if [[ ${1-} =~ ^(install|upgrade|status|uninstall)$ ]]; then
    COMMAND=$1
    shift
  fi
  while (($#)); do
    case $1 in
      --bundle | --binary | --url | --sha256 | --version | --server-name | --apex)
        (($# > 1)) || fail 2 "\`$1\` lacks its value" "$usage_hint"
        local name=${1#--}
        name=${name//-/_}
        printf -v "${name^^}" '%s' "$2"
        shift
        ;;
      --dry-run) DRY_RUN=true ;;
      --purge) PURGE=true ;;
      --yes) YES=true ;;
      --no-backup) NO_BACKUP=true ;;
      --no-start) NO_START=true ;;
      --help | -h) say "$USAGE" && exit 0 ;;
      *) fail 2 "unknown argument \`$1\`" "$usage_hint" ;;
    esac
    shift
  done
  # An empty value is as good as none, so that a runbook can pass its variables on.
  VERSION=${VERSION:-$PINNED_VERSION} SHA256=${SHA256,,}
  if [[ $BUNDLE == [!/]* ]]; then BUNDLE=$PWD/$BUNDLE; fi
  if [[ $BINARY == [!/]* ]]; then BINARY=$PWD/$BINARY; fi
  [[ -z $SHA256 || $SHA256 =~ ^[0-9a-f]{64}$ ]] || fail 2 "\`--sha256 $SHA256\` is not a SHA-256" "64 hexadecimal digits"
  [[ $VERSION =~ ^[0-9]+(\.[0-9]+)+[A-Za-z0-9.+-]*$ ]] || fail 2 "\`--version $VERSION\` is not a version" "e.g. \`--version $PINNED_VERSION\`"
  [[ $APEX =~ ^(|here|elsewhere)$ ]] || fail 2 "\`--apex $APEX\` is neither \`here\` nor \`elsewhere\`" "$usage_hint"
  [[ -z $URL || -n $SHA256 ]] || fail 2 "\`--url\` without \`--sha256\`" "nothing is executed without a checksum; pass the one you expect"
  if $PURGE && [[ $COMMAND != uninstall ]]; then fail 2 "\`--purge\` belongs to \`uninstall\`" "$usage_hint"; fi
  if $PURGE && ! $YES; then fail 2 "\`--purge\` removes all messages, media, keys and backups for good" "add \`--yes\` if you mean it; a server name whose key is lost is burnt"; fi
}

# begin: what every command that changes something needs.
begin() {
  TEMP=$(mktemp --directory /var/tmp/conduit-install.XXXXXX)
  trap finish EXIT
  trap 'unexpected $? "$BASH_COMMAND"' ERR
  $DRY_RUN || lock install
  local file key value
  for file in "$HERE"/*.service "$HERE"/*.timer; do UNITS+=("${file##*/}"); done
  for file in "$HERE"/*.timer; do TIMERS+=("${file##*/}"); done
  load_units caddy.service "${UNITS[@]}"
  if [[ -f $ROOT/install.state ]]; then
    while IFS='=' read -r key value; do STATE[$key]=$value; done <"$ROOT/install.state"
  fi
}

# unexpected CODE COMMAND: a step failed that has no message of its own.
unexpected() {
  trap - ERR
  fail 1 "\`$2\` failed with exit code $1" "its own message is above; mend the cause and run this again, it goes on where it stopped"
}

finish() {
  local code=$?
  rm --recursive --force "${TEMP:?}" ${UNDO_DIR:+"$UNDO_DIR"}
  exit "$code"
}

cmd_install() {
  check_machine
  begin
  SERVER_NAME=${SERVER_NAME:-$(site_identity server_name || say timmy.foundation)}
  # What was decided at the installation holds for later runs.
  APEX=${APEX:-${STATE[apex]:-here}}
  check_name
  check_ports
  check_disk
  recover_upgrade
  check_site
  plan_caddy
  choose_source
  if [[ $COMMAND == upgrade && ! -e $ROOT/site.identity ]]; then fail 3 "there is no site to upgrade on this host" "use \`install.sh install\`"; fi

  OLD_TARGET=${RECOVERED:-$(readlink "$LINK" || true)}
  backup_first
  install_files
  install_units
  if ! $NO_START; then
    run_server
    ensure_identity
    start_timers
    apply_caddy
  fi
  summary
}

# backup_first: before anything is replaced, with the scripts that are installed now.
backup_first() {
  if [[ -n $OLD_TARGET && $OLD_TARGET != "releases/$RELEASE/conduit" && -e $ROOT/site.identity && -x $ROOT/scripts/backup.sh ]] &&
    ! $NO_BACKUP && change backup "$ROOT/data" "(pre-upgrade)"; then
    "$ROOT/scripts/backup.sh" --label pre-upgrade >&2 ||
      fail 1 "the backup before the upgrade failed, nothing was upgraded" "mend it (backup.md), or pass \`--no-backup\`"
  fi
}

# install_files: the tree below /opt/conduit.
install_files() {
  local file paths=("$ROOT"{,/releases,/bin,/data,/logs,/scripts,/backups,/secrets,/staging,/conduit.toml,/conduit.toml.new,/install.state}
    "$ROOT"/{scripts,releases,bin}/* "$ROOT"/releases/*/conduit "$UNIT_DIR"/conduit* "$CADDY_SITE")
  load_meta "${paths[@]}"

  slurp /etc/passwd
  if [[ $'\n'$REPLY != *$'\n'conduit:* ]] && change create "user conduit"; then systemd-sysusers "$HERE/conduit.sysusers"; fi

  ensure_dir "$ROOT" 0755 root:root
  for file in releases bin scripts; do ensure_dir "$ROOT/$file" 0755 root:root; done
  for file in backups secrets staging; do ensure_dir "$ROOT/$file" 0700 root:root; done
  ensure_dir "$ROOT/data" 0700 conduit:conduit
  ensure_dir "$ROOT/logs" 0750 root:conduit # the author's; Conduit logs to the journal

  ensure_release
  for file in "$HERE"/scripts/*; do
    [[ -f $file ]] || continue
    render "$file"
    if [[ -x $file ]]; then ensure_file "$ROOT/scripts/${file##*/}" 0755 root:root "$REPLY"
    else ensure_file "$ROOT/scripts/${file##*/}" 0644 root:root "$REPLY"; fi
  done
  ensure_config
  if [[ ! -s $ROOT/secrets/restic-password ]] && change create "$ROOT/secrets/restic-password" "(0600 root:root)"; then
    write_file "$ROOT/secrets/restic-password" 0600 root:root "$(head --bytes=32 /dev/urandom | base64 --wrap=0)"$'\n'
  fi
}

# ensure_config: replaces conduit.toml only while it is what an installer wrote; otherwise the new text goes beside it.
ensure_config() {
  local wanted shipped file=$ROOT/conduit.toml
  render "$HERE/conduit.toml"
  wanted=$REPLY
  read -r shipped _ < <(printf '%s' "$wanted" | sha256sum)
  if [[ -f $file ]]; then
    slurp "$file"
    digest_of "$file"
    if [[ $REPLY != "$shipped" && $REPLY != "${STATE[conduit_toml]-}" ]]; then
      ensure_file "$file.new" 0640 root:conduit "$wanted"
      note "\`$file\` was edited and is kept; this version's text is in \`$file.new\`"
      slurp "$file"
      ensure_file "$file" 0640 root:conduit "$REPLY" # its mode and owner still hold: it may carry secrets
      ensure_state "${STATE[conduit_toml]-}"
      return
    fi
  fi
  ensure_file "$file" 0640 root:conduit "$wanted"
  ensure_state "$shipped"
}

# ensure_state DIGEST_OF_SHIPPED_CONFIG
ensure_state() {
  local import=${STATE[caddy_import]:-0}
  if $IMPORT_DIFFERS; then import=1; fi
  ensure_file "$ROOT/install.state" 0644 root:root \
    "conduit_toml=$1"$'\n'"caddy_import=$import"$'\n'"apex=$APEX"$'\n'
}

# install_units: all unit files.  systemd finds new ones by itself when they are started; only those that it has loaded
# must be read again, and then all at once.
install_units() {
  local unit enable=() stale=false
  for unit in "${UNITS[@]}"; do
    render "$HERE/$unit"
    ensure_file "$UNIT_DIR/$unit" 0644 root:root "$REPLY"
    if [[ $TOUCHED == *" $unit "* && ${UNIT[$unit.LoadState]-} != not-found ]]; then stale=true; fi
    # A run that was cut off had written it already.
    if [[ ${UNIT[$unit.NeedDaemonReload]-} == yes ]]; then stale=true; fi
  done
  for unit in conduit.service "${TIMERS[@]}"; do
    if ! enabled "$unit" && change enable "$unit"; then enable+=("$unit"); fi
  done
  if ((${#enable[@]})); then systemctl --quiet --no-reload enable "${enable[@]}"; fi
  if $stale && ! $DRY_RUN; then systemctl daemon-reload; fi
}

# run_server: starts what is not running, restarts what must change, leaves everything else alone.
run_server() {
  local target=releases/$RELEASE/conduit running=false
  if [[ ${UNIT[conduit.service.ActiveState]-} == active ]]; then running=true; fi
  if [[ $OLD_TARGET != "$target" ]]; then
    change link "$LINK" "-> $target" || true
  elif $running && [[ $TOUCHED != *" conduit.toml "* && $TOUCHED != *" conduit.service "* ]]; then
    return
  fi
  local verb=start
  if $running; then verb=restart; fi
  change "$verb" conduit.service || return 0
  if [[ -e $ROOT/site.identity && -n $OLD_TARGET ]]; then
    guarded_start "$target"
  else
    set_link "$target"
    if $running; then systemctl stop conduit.service; fi
    first_start
  fi
}

start_timers() {
  local unit start=()
  for unit in "${TIMERS[@]}"; do
    if [[ ${UNIT[$unit.ActiveState]-} != active ]] && change start "$unit"; then start+=("$unit"); fi
  done
  if ((${#start[@]})); then systemctl start "${start[@]}"; fi
}

cmd_status() {
  local code=0 site
  if ! site=$(site_identity server_name); then
    say "site       none installed"
    return 1
  fi
  load_units conduit.service caddy.service
  say "site       $site, conduit $(site_identity installed_version), key $(site_identity key_id)"
  say "release    $(readlink "$LINK" || say "no link \`$LINK\`")"
  say "conduit    ${UNIT[conduit.service.ActiveState]-unknown}, pid ${UNIT[conduit.service.MainPID]-none}"
  local file=missing
  if [[ -e $CADDY_SITE ]]; then file=present; fi
  say "caddy      ${UNIT[caddy.service.ActiveState]-unknown}, site file $file"
  [[ ${UNIT[conduit.service.ActiveState]-} == active ]] || code=1
  say "health     $("$ROOT/scripts/health.sh" || true)"
  return "$code"
}

cmd_uninstall() {
  check_machine
  begin
  SITE_TEXT=
  plan_caddy_removal
  apply_caddy
  if $IMPORT_DIFFERS && [[ -d $CADDY_DIR/conf.d ]]; then
    local left=("$CADDY_DIR"/conf.d/!(conduit.caddy))
    if ((${#left[@]} == 0)); then remove "$CADDY_DIR/conf.d"; fi
  fi

  local files=("$UNIT_DIR"/conduit.service "$UNIT_DIR"/conduit-*.@(service|timer)) file running=()
  for file in "${files[@]}"; do
    if [[ -e $file ]] && change disable "${file##*/}"; then running+=("${file##*/}"); fi
  done
  if ((${#running[@]})); then systemctl --quiet disable --now "${running[@]}" 2>/dev/null || true; fi
  remove "${files[@]}"
  if ((${#running[@]})); then
    systemctl daemon-reload
    systemctl reset-failed 'conduit*' 2>/dev/null || true
  fi
  remove "$LINK" "$ROOT"/{releases,bin,scripts,logs,staging,install.state,conduit.toml.new}
  if $PURGE; then
    remove "$ROOT"
    slurp /etc/passwd
    if [[ $'\n'$REPLY == *$'\n'conduit:* ]] && change remove "user conduit"; then userdel conduit; fi
  elif [[ -d $ROOT ]]; then
    note "kept in \`$ROOT\`: $(cd "$ROOT" && printf '%s ' !(conduit|releases|bin|scripts|logs|staging|install.state|conduit.toml.new))"
  fi
  summary
}

parse "$@"
case $COMMAND in
  install | upgrade) cmd_install ;;
  status) cmd_status ;;
  uninstall) cmd_uninstall ;;
esac
