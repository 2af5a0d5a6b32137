#!/usr/bin/env bash
# Puts one fault to the kit and looks at the six invariants. Says on standard output
#   exit CODE         how the script that the fault was put to ended
#   fired yes|no      whether the fault happened
#   broken N WHAT     what is not as the invariant N of operations.md wants it, 0 for another end than the fault must have
# It asks with its own means: what it judges is not to judge itself.
#
#   trial.sh setup    once, on a bootstrapped site; says whether a disk of this machine can be cut off from its power:
#                     `power yes`, or `power no REASON`
#   trial.sh backup   with /run/fault/order: for hook.sh, and BEFORE, AFTER (commands), EXITS (the ends it may have),
#                     DRAIN and UNDO (a restore that is unfinished is undone before it is run again)
#   trial.sh restore
set -uo pipefail

readonly ROOT=/opt/conduit STATE=/run/fault
readonly API=http://127.0.0.1:6167/_matrix CATALOG=$ROOT/backups/catalog.jsonl
# Where power is cut /opt lies on this image, in memory: what is cut off is the file system on it, and not the image.
readonly IMAGE=$STATE/power.img
BEFORE='' AFTER='' EXITS='' FAULT_DO='' DRAIN=0 UNDO=''

broken() { printf 'broken %s %s\n' "$1" "$(tr '\n' ' ' <<<"$2" | cut -c -600)"; }

# api METHOD PATH [BODY]: the status on the last line.
api() {
  curl --silent --max-time 20 --request "$1" --header "Authorization: Bearer $(<$STATE/token)" --write-out '\n%{http_code}' \
    ${3+--data "$3"} "$API/client/v3/$2"
}

# up: whether the client API answers within 30 s.
up() {
  local end=$((SECONDS + 30))
  while ((SECONDS < end)); do
    if curl --silent --fail --output /dev/null --max-time 2 "$API/client/versions"; then return 0; fi
    sleep 0.02
  done
  return 1
}

key() {
  curl --silent --fail --max-time 5 "$API/key/v2/server" |
    jq -r '[.server_name, (.verify_keys | to_entries[] | .key, .value.key)] | join(" ")'
}

# say NAME: a message, and prints its event id.
say() {
  api PUT "rooms/$(<$STATE/room)/send/m.room.message/$1-$EPOCHREALTIME" '{"msgtype": "m.text", "body": "'"$1"'"}' | head -n 1 | jq -er .event_id
}

knows() { [[ $(api GET "rooms/$(<$STATE/room)/event/$1" | tail -n 1) == 200 ]]; }

# which LATE: whether the data that is served is the old one, which has this message, or the new one, which has not.
which_data() {
  if ! knows "$(<$STATE/early)"; then echo neither; elif knows "$1"; then echo old; else echo new; fi
}

newest() { tail -n 1 "$CATALOG" | jq -er .snapshot; }

# listing: every file of the data but what each start makes anew.
listing() { (cd "$ROOT/data" 2>/dev/null && find . -type f ! -name LOCK ! -name 'LOG*' -printf '%P\n' | LC_ALL=C sort | xargs -d '\n' -r sha256sum); }

repository() { restic --repo "$ROOT/backups/restic" --password-file "$ROOT/secrets/restic-password" --no-cache "$@" --no-lock; }

# promised ID: the same, as the manifest of the snapshot has it.
promised() {
  local kept=$STATE/promised.$1
  if [[ ! -s $kept ]]; then
    repository dump "$1" manifest.json |
      jq -r '.files | to_entries[] | select(.key | startswith("data/")) | "\(.value.sha256)  \(.key[5:])"' | LC_ALL=C sort -k 2 >"$kept"
  fi
  cat "$kept"
}

# listed_are_there WHEN: of invariant 3, what a run that cleans up after another could break.
listed_are_there() {
  local id
  for id in $(jq -r .snapshot "$CATALOG"); do
    compgen -G "$ROOT/backups/restic/snapshots/$id*" >/dev/null || broken 3 "$1: snapshot $id is listed, the repository has none"
  done
}

# catalogue_is_sound BEFORE: invariant 3. restic names each file by the hash of its content, so that all of a repository is
# read quickly; a snapshot that was listed since BEFORE is read back by its manifest, too.
catalogue_is_sound() {
  local now said
  now=$(find "$CATALOG" "$ROOT/backups/restic" -type f ! -path '*/locks/*' -printf '%P %s %T@ %i\n' | LC_ALL=C sort | sha256sum)
  if [[ -s $STATE/sound && $(<$STATE/sound) == "$now" ]]; then return; fi
  jq -e . "$CATALOG" >/dev/null 2>&1 || broken 3 "the catalogue is no list of JSON lines"
  said=$(find "$ROOT"/backups/restic/{data,index,snapshots} -type f ! -name '*-tmp-*' -print0 | xargs -0 openssl dgst -sha256 -r |
    awk '{ file = $2; sub(/.*\//, "", file); if ($1 != file) print "*" file }')
  [[ -z $said ]] || broken 3 "not what their names say: $said"
  said=$(repository check 2>&1) ||
    broken 3 "restic check: $(tail -n 3 <<<"$said")"
  listed_are_there after
  if [[ $(newest) != "$1" ]]; then said=$("$ROOT/scripts/backup.sh" verify "$(newest)" 2>&1) || broken 3 "$said"; fi
  echo "$now" >$STATE/sound
}

# tidy WHEN: invariant 5; what a run may leave until the next one is only looked for after that.
tidy() {
  local name left
  for name in backup backup-request; do
    flock --nonblock "/run/lock/conduit-$name" true || broken 5 "$1: the lock $name is held"
  done
  [[ $1 == again ]] || return
  left=$(find "$ROOT/staging" -mindepth 1 2>/dev/null | head -n 5; find "$ROOT" "$ROOT/backups" "$ROOT/secrets" -maxdepth 1 -name '*.partial'; find "$ROOT/backups/restic" -type f \( -path '*/locks/*' -o -name '*-tmp-*' \); ls "$ROOT"/backups/forget.pending 2>/dev/null)
  [[ -z $left ]] || broken 5 "left behind: $left"
}

# served WHEN WANTED LATE: invariants 1 and 2, of a site that must answer.
served() {
  local found
  up || { broken 1 "$1: nobody answers; conduit is $(systemctl is-active conduit.service)"; return 1; }
  found=$(key)
  [[ $found == "$(<$STATE/key)" ]] || broken 2 "$1: the server publishes $found"
  found=$(which_data "$3")
  [[ " $2 " == *" $found "* ]] || broken 2 "$1: the data is $found, and not $2"
}

# ended CODE: whether the fault happened, and whether the script's end is one that it may have.
ended() {
  local code=$1 fired=no
  printf 'exit %s\n' "$code"
  if [[ $FAULT_DO == inject ]]; then
    if grep -q -s -E 'INJECTED|killed by SIGKILL' $STATE/trace; then fired=yes; fi
  elif [[ $FAULT_DO == power ]]; then
    if [[ -e $STATE/cut ]]; then fired=yes; fi
  elif [[ $FAULT_DO == memory ]]; then
    # It was enough for a run that got through.
    if [[ -e $STATE/reached && $code != 0 ]]; then fired=yes; fi
  elif [[ -e $STATE/reached || -z $FAULT_DO ]]; then
    fired=yes
  fi
  printf 'fired %s\n' "$fired"
  sed 's/^/said /' $STATE/said | tail -n 4
  if [[ -n $EXITS && " $EXITS " != *" $code "* ]]; then broken 0 "the script ended with $code, and not with one of $EXITS: $(tail -n 3 $STATE/said)"; fi
  if [[ $FAULT_DO == second ]]; then
    [[ $(cat $STATE/second 2>/dev/null) == 75 ]] || broken 0 "the second command ended with $(cat $STATE/second 2>/dev/null): $(cat $STATE/second.said)"
  fi
}

# mount_image DIR: ext4, without its mercy for programs that rename a file before they have synced it.
mount_image() { mount -t ext4 -o loop,noauto_da_alloc "$IMAGE" "$1"; }

# unmount DIR: the image, and returns when the kernel has forgotten the file system: until then it would come back as it is.
unmount() {
  local device end=$((SECONDS + 60))
  device=$(findmnt --noheadings --output SOURCE --types ext4 --mountpoint "$1")
  while findmnt --types ext4 --mountpoint "$1" >/dev/null || [[ -e /sys/fs/ext4/${device##*/} ]]; do
    if findmnt --types ext4 --mountpoint "$1" >/dev/null && umount "$1" 2>/dev/null; then continue; fi
    if ((SECONDS >= end)); then
      echo "$1 is in use by one of: $(ps -e -o pid=,args= | tail -n 40)" >&2
      return 1
    fi
    sleep 0.02
  done
}

# onto_image: the site moves to a disk whose power can be cut. Where it was nothing stays that could be taken for it.
onto_image() {
  systemctl stop conduit.service
  rm -f "$IMAGE"
  truncate -s "$(($(df --output=size -k /opt | tail -n 1)))K" "$IMAGE" && mkfs.ext4 -q -m 0 "$IMAGE" && mount_image /mnt &&
    cp -a /opt/. /mnt && unmount /mnt && find /opt -mindepth 1 -delete && mount_image /opt
  systemctl start conduit.service && up
}

# back_from_image: and back.
back_from_image() {
  systemctl stop conduit.service
  unmount /opt && mount_image /mnt && cp -a /mnt/. /opt && rm -rf /opt/lost+found && unmount /mnt && rm -f "$IMAGE"
  systemctl start conduit.service && up
}

# cut_off: the file system at /opt writes nothing any more (EXT4_IOC_SHUTDOWN, without flushing its journal).
cut_off() {
  # shellcheck disable=SC2016
  perl -e 'my $how = pack("L", 2); sysopen(DISK, $ARGV[0], 0) && ioctl(DISK, 0x8004587D, $how) or die "$!\n"' "$1"
}

# fail_power PID: the power goes, and comes back: what was not on the disk is lost, with everything in memory and in /run, and
# nobody lives on. What systemd does for its units' ends finds nothing that it could read.
fail_power() {
  local said
  cut_off /opt
  : >$STATE/cut
  kill -KILL -- "-$1"
  systemctl kill --signal=KILL 'conduit*.service'
  systemctl stop 'conduit*.service'
  systemctl reset-failed 'conduit*.service' 2>/dev/null
  said=$(unmount /opt 2>&1 && mount_image /opt 2>&1) || broken 0 "the disk does not come back: $said"
  rm -rf /run/conduit-* /run/systemd/system/conduit.service.d
  systemctl daemon-reload
}

# fail_power_in_time PID: cuts the power when the fault says so, if PID lives until then.
fail_power_in_time() {
  local stops=0 stopped
  until [[ -e $STATE/reached ]]; do
    kill -0 "$1" 2>/dev/null || return
    sleep 0.01
  done
  if [[ -z ${FAULT_NTH-} ]]; then
    # A moment that was drawn.
    sleep "$(awk "BEGIN { print ${FAULT_MILLISECONDS:-0} / 1000 }")"
  fi
  while [[ -n ${FAULT_NTH-} ]]; do
    kill -0 "$1" 2>/dev/null || return
    stopped=$(grep -s -e '--- SIGSTOP' $STATE/trace | sed -n "$((stops + 1))p")
    if [[ -z $stopped ]]; then
      sleep 0.01
      continue
    fi
    if ((++stops == FAULT_NTH)); then break; fi
    kill -CONT "${stopped%% *}"
  done
  fail_power "$1"
}

# run_script COMMAND...: puts the fault to it; returns how it ended. In a session of its own, to be killed as a whole.
run_script() {
  local pid
  setsid --wait timeout 200 "$@" >$STATE/said 2>&1 &
  pid=$!
  if [[ $FAULT_DO == power ]]; then fail_power_in_time "$pid"; fi
  wait "$pid" 2>/dev/null
}

# begin: forgets the last trial, and sets the stage for this one.
begin() {
  rm -f $STATE/{reached,cut,trace,second,second.said,said}
  # shellcheck source=/dev/null
  source $STATE/order
  if [[ $FAULT_DO == power ]]; then onto_image; fi
}

# settle: Conduit does not sync what it has acknowledged; what says whether data is old or new is to be there after a power
# cut.
settle() {
  if [[ $FAULT_DO == power ]]; then sync -f /opt; fi
}

# heal: takes the fault away, and gives the disk back what it took.
heal() {
  rm -f $STATE/order
  case $FAULT_DO in
    disk | inodes) mount -o "remount,$(<$STATE/disk)" /opt ;;
    memory) rm -rf /run/systemd/system.control/conduit-backup.service.d && systemctl daemon-reload ;;
  esac
  eval "$AFTER"
}

trial_backup() {
  local late before code said end
  begin
  if ! { late=$(say late) && before=$(newest); }; then
    broken 0 "the site was not well before the trial"
    return
  fi
  eval "$BEFORE"
  settle
  run_script "$ROOT/scripts/backup.sh"
  code=$?
  # The unit's last word is not yet spoken when its script was killed.
  end=$((SECONDS + 60))
  while [[ $(systemctl show -P ActiveState conduit-backup.service) == *activating ]]; do
    if ((SECONDS >= end)); then
      broken 5 "the backup does not end: $(systemctl status --no-pager --lines=1 conduit-backup.service)"
      systemctl kill --signal=KILL conduit-backup.service
      end=$((SECONDS + 400))
    fi
    sleep 0.02
  done
  heal
  # As at the next boot.
  if [[ -e $STATE/cut ]]; then systemctl start conduit.service 2>/dev/null; fi
  ended "$code"
  served after old "$late"
  catalogue_is_sound "$before"
  jq -r .snapshot "$CATALOG" | grep -q -x "$before" || broken 4 "the newest good backup $before is listed no more"
  tidy after

  said=$(timeout 200 "$ROOT/scripts/backup.sh" 2>&1)
  code=$?
  if ((code != 0)); then
    broken 6 "backup.sh ended with $code: $(tail -n 4 <<<"$said")"
  else
    [[ $(tail -n 1 <<<"$said") == "snapshot $(newest)" && $(newest) != "$before" ]] || broken 4 "the new backup is not the newest: $(tail -n 1 <<<"$said")"
  fi
  served again old "$late"
  listed_are_there again
  tidy again
}

trial_restore() {
  local late before code said run wanted='' scope=()
  begin
  if ! { late=$(say late) && before=$(newest); }; then
    broken 0 "the site was not well before the trial"
    return
  fi
  promised "$before" >/dev/null
  systemctl stop conduit.service
  listing >$STATE/old
  run=$(systemctl show -P InvocationID conduit.service)
  eval "$BEFORE"
  settle
  if [[ $FAULT_DO == memory ]]; then scope=(systemd-run --scope --quiet --collect); fi
  BASH_ENV=/root/fault/hook.sh run_script "${scope[@]}" "$ROOT/scripts/restore.sh" latest --replace --drain "$DRAIN"
  code=$?
  heal
  ended "$code"
  case $code in
    0) wanted=new ;;
    3 | 4 | 5) wanted=old ;;
    *) wanted='old new' ;;
  esac
  if [[ ! -e $ROOT/data ]]; then
    # Between the two renames.
    if systemctl start conduit.service 2>/dev/null; then broken 2 "without data the server starts"; fi
    [[ $wanted == 'old new' ]] || broken 2 "there is no data"
  else
    if [[ $run == "$(systemctl show -P InvocationID conduit.service)" ]]; then
      # Nobody has started the server on it, so every byte is known.
      if cmp -s $STATE/old <(listing); then
        wanted=old
      elif cmp -s <(promised "$before") <(listing); then
        wanted=new
      else
        broken 2 "after: the data is neither the old nor the new: $(diff <(promised "$before") <(listing) | head -n 5)"
      fi
    fi
    # As at the next boot.
    systemctl start conduit.service 2>/dev/null
    served after "$wanted" "$late"
  fi
  catalogue_is_sound "$before"
  [[ $(newest) == "$before" ]] || broken 4 "the newest backup is $(newest), it was $before"
  tidy after

  # The operator has changed his mind.
  if [[ -n $UNDO && -e $ROOT/staging/restore.json ]]; then
    systemctl stop conduit.service
    said=$(timeout 200 "$ROOT/scripts/restore.sh" undo 2>&1)
    code=$?
    ((code == 0)) || broken 6 "restore.sh undo ended with $code: $(tail -n 4 <<<"$said")"
    cmp -s $STATE/identity "$ROOT/site.identity" || broken 2 "undone: the identity is $(<"$ROOT/site.identity")"
    systemctl start conduit.service 2>/dev/null
    served undone old "$late"
  fi

  systemctl stop conduit.service
  said=$(timeout 200 "$ROOT/scripts/restore.sh" latest --replace --drain 0 2>&1)
  code=$?
  ((code == 0)) || broken 6 "restore.sh ended with $code: $(tail -n 4 <<<"$said")"
  # A site that the script could not bring back must not spoil the next trial.
  ((code == 0)) || systemctl start conduit.service
  served again new "$late"
  tidy again
  # An unfinished restore needs them.
  if ((code == 0)); then rm -rf "$ROOT"/data.before-* "$ROOT"/data.failed-*; fi
}

# power: whether a disk can be cut off here; where it cannot, why. Seen to lose what was not synced, and nothing else.
power() {
  local number said
  [[ -e /dev/loop-control ]] || mknod /dev/loop-control c 10 237
  for ((number = 0; number < 64; number++)); do
    [[ -e /dev/loop$number ]] || mknod "/dev/loop$number" b 7 "$number"
  done
  if said=$({
    truncate -s 64M "$IMAGE" && mkfs.ext4 -q -F "$IMAGE" && mount_image /mnt && echo synced >/mnt/synced && sync -f /mnt &&
      echo lost >/mnt/lost && cut_off /mnt && unmount /mnt && mount_image /mnt && cat /mnt/synced && [[ ! -s /mnt/lost ]] && unmount /mnt
  } 2>&1) && [[ $said == synced ]]; then
    echo power yes
  else
    umount /mnt 2>/dev/null || true
    echo "power no $(tail -n 1 <<<"$said")"
  fi
  rm -f "$IMAGE"
}

setup() {
  set -e
  mkdir -p /root/fault/bin $STATE /run/systemd/system/conduit-backup.service.d
  df --output=size,itotal -k /opt | awk 'END { print "size=" $1 "k,nr_inodes=" $2 }' >$STATE/disk
  jq -j .administrator.access_token "$ROOT/secrets/bootstrap-session.json" >$STATE/token
  # shellcheck disable=SC2016
  printf '#!/bin/sh\nexec /usr/bin/date --date="$FAULT_CLOCK" "$@"\n' >/root/fault/bin/date
  chmod 755 /root/fault/bin/date
  printf '[Service]\nEnvironment=BASH_ENV=/root/fault/hook.sh\n' >/run/systemd/system/conduit-backup.service.d/fault.conf
  systemctl daemon-reload
  api POST createRoom '{"name": "faults"}' | head -n 1 | jq -er .room_id | tr -d '\n' >$STATE/room
  say early >$STATE/early
  key >$STATE/key
  cp "$ROOT/site.identity" $STATE/identity
  "$ROOT/scripts/backup.sh" >/dev/null 2>&1
  power
}

case ${1-} in
  setup) setup ;;
  backup | restore)
    "trial_$1"
    if [[ $FAULT_DO == power ]]; then back_from_image || broken 0 "the site could not be taken back from the disk that was cut off"; fi
    ;;
  *) exit 2 ;;
esac
