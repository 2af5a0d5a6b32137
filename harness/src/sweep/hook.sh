# shellcheck shell=bash
# Sourced before its script by every bash whose environment names this file in BASH_ENV: does to the one that
# /run/fault/order is meant for what stands there. The order sets
#   FAULT_SCRIPT  words of the command line by which the script is known
#   FAULT_STEP    when it happens: as this step of the script begins
#   FAULT_DO      what: one of the functions fault_DO below, with its own variables

# Machines of the lab share processors, and what waits for idle ones waits for ever.
renice() { :; }
ionice() { :; }

[[ -e /run/fault/order ]] || return 0
# shellcheck source=/dev/null
source /run/fault/order
[[ $(tr '\0' ' ' <"/proc/$$/cmdline") == *"$FAULT_SCRIPT"* ]] || return 0

# The script itself dies. Its children may live on.
fault_kill() { kill -KILL $$; }

# It dies with all of its children.
fault_group() { kill -KILL 0; }

# From here on the FAULT_K-th of the FAULT_CALLS that the script and each of its children makes comes to FAULT_HOW. strace is
# made by a subshell that ends before the script goes on, so that it is no child that the script would wait for, and
# without our descriptors, which hold locks.
fault_inject() {
  (
    for fd in /proc/"$BASHPID"/fd/*; do
      fd=${fd##*/}
      if ((fd > 2)); then eval "exec $fd>&-"; fi
    done
    strace -f -qq -o /run/fault/trace -e "trace=$FAULT_CALLS" -e "inject=$FAULT_CALLS:$FAULT_HOW:when=$FAULT_K" -p $$ >/run/fault/strace 2>&1 &
    until grep -q '^TracerPid:[[:space:]]*[1-9]' "/proc/$$/status"; do kill -0 $! 2>/dev/null || break; done
  ) || true
}

# The disk has only so much left: FAULT_FREE kibibytes.
fault_disk() {
  mount -o "remount,size=$(($(df --output=used -k /opt | tail -n 1) + FAULT_FREE))k" /opt
}

# Its control group has only so much memory left in all: FAULT_FREE mebibytes. Whoever needs more is killed. Less than what is
# used, of which files in memory are a part, is no limit that the kernel takes.
fault_memory() {
  local unit used
  unit=$(sed -n -E 's/^(0:|[0-9]+:name=systemd):.*\/([^/]+)$/\2/p' /proc/self/cgroup | tail -n 1)
  used=$(systemctl show -P MemoryCurrent "$unit")
  systemctl set-property --runtime "$unit" "MemoryMax=$((used + FAULT_FREE * 1048576))" MemorySwapMax=0
}

# trial.sh cuts the power: right here, FAULT_MILLISECONDS later, or after the FAULT_NTH of the FAULT_CALLS, each of which
# stops who made it until trial.sh has counted it.
fault_power() {
  if [[ -n ${FAULT_CALLS-} ]]; then
    fault_inject
  elif [[ -z ${FAULT_MILLISECONDS-} ]]; then
    kill -STOP $$
  fi
}

# Or so many inodes: FAULT_FREE.
fault_inodes() {
  mount -o "remount,nr_inodes=$(($(df --output=iused /opt | tail -n 1) + FAULT_FREE))" /opt
}

# Somebody gives the command FAULT_SECOND at this moment.
fault_second() {
  env -u BASH_ENV bash -c "$FAULT_SECOND" >/run/fault/second.said 2>&1 || echo $? >/run/fault/second
}

# The script's clock says FAULT_CLOCK.
fault_clock() {
  export FAULT_CLOCK
  PATH=/root/fault/bin:$PATH
}

# A script under `set -e` must not end for what is done to it here. bash comes here twice for one `step NAME`: before the call,
# and before the first command of the function.
fault_step() {
  [[ $1 == "${FAULT_STEP-}" && ! -e /run/fault/reached ]] || return 0
  : >/run/fault/reached
  "fault_$FAULT_DO" || true
}

set -o functrace
trap 'case $BASH_COMMAND in "step "*) fault_step "${BASH_COMMAND#step }" ;; esac' DEBUG
