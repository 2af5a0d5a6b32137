# shellcheck shell=bash disable=SC2034 # sourced by install.sh: variables are shared with its other parts
# Our site beside those that Caddy serves already: one file in conf.d/ and one import line.  The *merged* configuration is
# validated as Caddy's user with Caddy's environment before a live file is touched.

CADDY_DIR=/etc/caddy
CADDY_SITE=$CADDY_DIR/conf.d/conduit.caddy
CADDY_IMPORT='import conf.d/*.caddy'
SITE_TEXT=          # wanted content of CADDY_SITE; empty: it shall not be there
CADDYFILE_TEXT=     # wanted content of the Caddyfile
SITE_DIFFERS=false
IMPORT_DIFFERS=false

# has_import TEXT: is conf.d imported already, by us or in the operator's words?
has_import() { grep --quiet --extended-regexp '^[[:space:]]*import[[:space:]]+(/etc/caddy/)?conf\.d/\*(\.caddy)?[[:space:]]*$' <<<"$1"; }

# plan_caddy: what the two files shall be.
plan_caddy() {
  render "$HERE/Caddyfile"
  SITE_TEXT=$REPLY
  if [[ $APEX == elsewhere ]]; then SITE_TEXT=${SITE_TEXT%%'# apex: begin'*}; fi
  slurp "$CADDY_DIR/Caddyfile"
  CADDYFILE_TEXT=$REPLY
  if ! has_import "$CADDYFILE_TEXT"; then
    IMPORT_DIFFERS=true
    # On a line of its own, even when the file's last line has no end.
    if [[ -n $CADDYFILE_TEXT && $CADDYFILE_TEXT != *$'\n' ]]; then CADDYFILE_TEXT+=$'\n'; fi
    CADDYFILE_TEXT+=$CADDY_IMPORT$'\n'
  fi
  REPLY=
  if [[ -f $CADDY_SITE ]]; then slurp "$CADDY_SITE"; fi
  if [[ $REPLY != "$SITE_TEXT" ]]; then SITE_DIFFERS=true; fi
  if $SITE_DIFFERS || $IMPORT_DIFFERS; then validate_caddy; fi
}

# plan_caddy_removal: the site goes, and the import line if it is ours and nobody else uses it.
plan_caddy_removal() {
  slurp "$CADDY_DIR/Caddyfile"
  CADDYFILE_TEXT=$REPLY
  if [[ -e $CADDY_SITE ]]; then SITE_DIFFERS=true; fi
  local others=("$CADDY_DIR"/conf.d/*.caddy)
  if [[ ${STATE[caddy_import]-} == 1 && ${#others[@]} -le 1 && ${others[0]} == "$CADDY_DIR/conf.d/"@(\*|conduit).caddy ]] &&
    [[ $'\n'$CADDYFILE_TEXT == *$'\n'"$CADDY_IMPORT"$'\n'* ]]; then
    IMPORT_DIFFERS=true
    CADDYFILE_TEXT=$'\n'$CADDYFILE_TEXT
    CADDYFILE_TEXT=${CADDYFILE_TEXT/$'\n'"$CADDY_IMPORT"$'\n'/$'\n'}
    CADDYFILE_TEXT=${CADDYFILE_TEXT#$'\n'}
  fi
  if $SITE_DIFFERS || $IMPORT_DIFFERS; then validate_caddy; fi
}

# run_caddy ARGUMENT...: as caddy.service would run it.  As root it would create log files that Caddy cannot open later.
run_caddy() {
  local user=${UNIT[caddy.service.User]:-root} file environment=()
  # systemctl prints the list quoted for a shell.
  eval "environment=(${UNIT[caddy.service.Environment]-})"
  file=${UNIT[caddy.service.EnvironmentFiles]-}
  file=${file% (*}
  (
    if [[ -n $file && -r $file ]]; then
      set -o allexport
      # shellcheck disable=SC1090
      source "$file"
      set +o allexport
    fi
    HOME=$(getent passwd "$user" | cut -d: -f6) exec setpriv --reuid="$user" --regid="$user" --init-groups \
      env "${environment[@]}" caddy "$@"
  )
}

# stage_caddy: a copy of the whole configuration directory in REPLY, its imports pointing into the copy.
stage_caddy() {
  REPLY=$TEMP/caddy
  rm --recursive --force "$REPLY"
  cp --archive "$CADDY_DIR" "$REPLY"
  # Caddy's user must reach it; whoever may not read the originals may not read the copies either.
  chmod 0711 "$TEMP"
}

# point_into STAGE TEXT: TEXT with absolute imports of the live directory pointing into the copy, in REPLY.
point_into() { REPLY=$(sed -E "s#^([[:space:]]*import[[:space:]]+)$CADDY_DIR/#\1$1/#" <<<"$2"); }

# validate_caddy: refuses (3) when the merged configuration would not load.
validate_caddy() {
  local stage output
  stage_caddy
  stage=$REPLY
  mkdir --parents "$stage/conf.d"
  rm --force "$stage/conf.d/conduit.caddy"
  if [[ -n $SITE_TEXT ]]; then printf '%s' "$SITE_TEXT" >"$stage/conf.d/conduit.caddy"; fi
  point_into "$stage" "$CADDYFILE_TEXT"
  printf '%s\n' "$REPLY" >"$stage/Caddyfile"
  if output=$(run_caddy validate --adapter caddyfile --config "$stage/Caddyfile" 2>&1); then return; fi

  # Whose fault is it?  Ask about the configuration without us.
  local reason=${output##*$'\n'}
  reason=${reason//"$stage"/"$CADDY_DIR"}
  run_caddy validate --adapter caddyfile --config "$CADDY_DIR/Caddyfile" >/dev/null 2>&1 ||
    fail 3 "Caddy's present configuration does not load: $reason" "mend \`$CADDY_DIR/Caddyfile\` first: caddy validate --config $CADDY_DIR/Caddyfile"
  case $output in
    *'ambiguous site definition'*"$SERVER_NAME"*)
      fail 3 "Caddy serves a site that is ours already: $reason" \
        "if it is the apex, pass \`--apex elsewhere\` and let that site answer /.well-known/matrix/* (deploy/well-known/)"
      ;;
  esac
  fail 3 "Caddy would not load with our site: $reason" \
    "nothing was changed; a \`$CADDY_DIR/Caddyfile\` of one site without braces must get its braces before anything can be imported"
}

# apply_caddy: writes the two files and has Caddy load them; puts them back when it will not.
apply_caddy() {
  local state=${UNIT[caddy.service.ActiveState]-} how=''
  UNDO=()
  if [[ -n $SITE_TEXT ]]; then
    if [[ ! -d $CADDY_DIR/conf.d ]]; then ensure_dir "$CADDY_DIR/conf.d" 0755 root:root; fi
    ensure_file "$CADDY_SITE" 0644 root:root "$SITE_TEXT"
    if ! enabled caddy.service && change enable caddy.service; then
      systemctl --quiet --no-reload enable caddy.service
    fi
  elif $SITE_DIFFERS && change remove "$CADDY_SITE"; then
    remember "$CADDY_SITE"
    rm "$CADDY_SITE"
  fi
  if $IMPORT_DIFFERS && change edit "$CADDY_DIR/Caddyfile" "($CADDY_IMPORT)"; then
    remember "$CADDY_DIR/Caddyfile"
    # In place of the old one with the old one's owner and mode.
    cp --archive "$CADDY_DIR/Caddyfile" "$CADDY_DIR/Caddyfile.new~"
    printf '%s' "$CADDYFILE_TEXT" >"$CADDY_DIR/Caddyfile.new~"
    mv --force --no-target-directory "$CADDY_DIR/Caddyfile.new~" "$CADDY_DIR/Caddyfile"
  fi
  if [[ $state != active && -n $SITE_TEXT ]]; then
    how=start
  elif [[ $state == active ]] && { $SITE_DIFFERS || $IMPORT_DIFFERS; }; then
    how=reload
  fi
  if [[ -n $how ]] && change "$how" caddy.service; then
    systemctl "$how" caddy.service >&2 || caddy_failed "$how"
  fi
  UNDO=()
}

caddy_failed() {
  journalctl --unit=caddy.service --lines=5 --no-pager --output=cat >&2 || true
  undo_files
  fail 1 "caddy did not $1 with our site; its previous files are back" \
    "see the lines above; with \`admin off\` Caddy cannot reload: systemctl restart caddy, then run this again"
}
