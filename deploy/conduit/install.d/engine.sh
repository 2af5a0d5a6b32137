# shellcheck shell=bash disable=SC2034 # sourced by install.sh: variables are shared with its other parts
# Changes: every change of the machine is announced by one line, and made unless this is a dry run.  What is already as
# wanted is not touched, so that a second run makes none.

CHANGES=0
UNDO=()        # `PATH TAB SAVED COPY` of every file replaced in this run, the copy empty where there was none
UNDO_DIR=      # where the copies are
declare -A META=() # path -> `MODE OWNER:GROUP`, read once for all paths
declare -A UNIT=() # `UNIT.Property` -> value, read once for all units
TOUCHED=" "    # names of the files changed in this run, for "what must be restarted?"

# change VERB TARGET [DETAIL]: prints the line and counts it.  True when the change is to be made, false in a dry run.
change() {
  printf '%-8s %s%s\n' "$1" "$2" "${3:+ $3}"
  ((++CHANGES))
  ! $DRY_RUN
}

# summary: the last line; the only one in which a dry run differs.
summary() { if $DRY_RUN; then say "would make $CHANGES changes"; else say "made $CHANGES changes"; fi; }

# load_meta PATH...: remembers mode and owner of those that exist.
load_meta() {
  local mode owner path
  while read -r mode owner path; do META[$path]="$mode $owner"; done < <(stat --format='%a %U:%G %n' "$@" 2>/dev/null || true)
}

# load_units UNIT...: remembers what systemd knows of them, in one call; their blocks are separated by empty lines.
load_units() {
  local line block=() id=''
  while IFS= read -r line; do
    if [[ -n $line ]]; then
      block+=("$line")
      if [[ $line == Id=* ]]; then id=${line#Id=}; fi
      continue
    fi
    for line in "${block[@]}"; do UNIT[$id.${line%%=*}]=${line#*=}; done
    block=() id=''
  done < <(systemctl show --property=Id,LoadState,ActiveState,MainPID,NeedDaemonReload,User,Environment,EnvironmentFiles "$@"; say)
}

# enabled UNIT: is it started at boot?  Asked of the links on disk: what systemd remembers may be older.
enabled() { compgen -G "/etc/systemd/system/*.wants/$1" >/dev/null; }

# remember PATH: keeps the present file for a roll-back.
remember() {
  local copy=
  if [[ -z $UNDO_DIR ]]; then UNDO_DIR=$(mktemp --directory /run/conduit-undo.XXXXXX); fi
  if [[ -e $1 ]]; then
    copy=$UNDO_DIR/${#UNDO[@]}
    cp --archive "$1" "$copy"
  fi
  UNDO+=("$1"$'\t'"$copy")
}

# undo_files: puts every file of this run back, newest first.
undo_files() {
  local i
  for ((i = ${#UNDO[@]} - 1; i >= 0; i--)); do
    if [[ -n ${UNDO[i]#*$'\t'} ]]; then mv --force --no-target-directory "${UNDO[i]#*$'\t'}" "${UNDO[i]%%$'\t'*}"
    else rm --force "${UNDO[i]%%$'\t'*}"; fi
  done
  UNDO=()
}

# slurp FILE: its content, unchanged, in REPLY; no process is started.
slurp() { IFS= read -r -d '' REPLY <"$1" || true; }

# render FILE: slurp, with the server name put in.
render() {
  slurp "$1"
  REPLY=${REPLY//"timmy.foundation"/"$SERVER_NAME"}
}

# write_file PATH MODE OWNER:GROUP CONTENT: whole or not at all.
write_file() {
  printf '%s' "$4" | install --mode="$2" --owner="${3%:*}" --group="${3#*:}" /dev/stdin "$1.new~"
  mv --force --no-target-directory "$1.new~" "$1"
}

# ensure_dir PATH MODE OWNER:GROUP
ensure_dir() {
  if [[ ! -d $1 ]]; then
    if change create "$1/" "($2 $3)"; then install --directory --mode="$2" --owner="${3%:*}" --group="${3#*:}" "$1"; fi
  elif [[ ${META[$1]-} != "${2#0} $3" ]]; then
    if change chmod "$1/" "($2 $3)"; then
      chown "$3" "$1"
      chmod "$2" "$1"
    fi
  fi
}

# ensure_file PATH MODE OWNER:GROUP CONTENT
ensure_file() {
  local path=$1 mode=$2 owner=$3 content=$4 verb=create
  if [[ -f $path && ! -L $path ]]; then
    slurp "$path"
    if [[ $REPLY != "$content" ]]; then
      verb=replace
    elif [[ ${META[$path]-} != "${mode#0} $owner" ]]; then
      if change chmod "$path" "($mode $owner)"; then
        chown "$owner" "$path"
        chmod "$mode" "$path"
      fi
      return
    else
      return 0
    fi
  fi
  TOUCHED+="${path##*/} "
  if change "$verb" "$path" "($mode $owner)"; then
    remember "$path"
    write_file "$path" "$mode" "$owner" "$content"
  fi
}

# remove PATH...: those that exist, with all below.
remove() {
  local path
  for path in "$@"; do
    if [[ -e $path || -L $path ]] && change remove "$path"; then rm --recursive --force --one-file-system -- "$path"; fi
  done
}
