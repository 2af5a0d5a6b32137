# shellcheck shell=bash
# Sourced, by BASH_ENV, by an installer that upgrades: it is killed, or has a command fail, where /run/cut/order says.
#   CUT_IN   the functions whose commands are counted, as a pattern
#   CUT_AT   at which of these commands it happens; 0: never
#   CUT_HOW  kill, fail, or wait until there is /run/cut/go
# Every command that is counted is listed in /run/cut/list; /run/cut/reached says that it happened.
[[ -e /run/cut/order && $(tr '\0' ' ' <"/proc/$$/cmdline") == *"/install.sh upgrade "* ]] || return 0
# shellcheck source=/dev/null
source /run/cut/order
CUT_COUNT=0

# cut_here FUNCTION COMMAND: whether it is to happen here.
cut_here() {
  ((BASHPID == $$)) && [[ $1 == @($CUT_IN) ]] || return 1
  printf '%s %s: %s\n' "$((++CUT_COUNT))" "$1" "${2%%$'\n'*}" >>/run/cut/list
  ((CUT_COUNT == CUT_AT)) || return 1
  printf '%s: %s\n' "$1" "${2%%$'\n'*}" >/run/cut/reached
}

# What the script has started may live on.
cut_kill() { kill -KILL $$; }
cut_wait() { until [[ -e /run/cut/go ]]; do sleep 0.05; done; }

if [[ $CUT_HOW != fail ]]; then
  set -o functrace
  trap 'if cut_here "${FUNCNAME[0]-}" "$BASH_COMMAND"; then "cut_$CUT_HOW"; fi' DEBUG
else
  for name in cp find ln mv rm systemctl; do
    eval "$name() { if cut_here \"\${FUNCNAME[1]-}\" \"$name \$*\"; then return 1; fi; command $name \"\$@\"; }"
  done
fi
