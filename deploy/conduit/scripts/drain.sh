#!/usr/bin/env bash
# Claims one-time keys of every local device, so that nobody else is given them; restore.sh does this before it opens the doors.
#
#   drain.sh COUNT   takes up to COUNT keys from each device, over $CONDUIT_API
#
# A database that went back in time has keys again that were claimed since, and a message to a device that used up such a
# key cannot be decrypted by it. Which keys those are nobody can know, but Conduit gives keys out in the order of their ids
# (users.rs, take_one_time_key), so they are the first ones. Not all are taken: a device without any is never told so by
# Conduit 0.10.12 and uploads no new ones for ever, while one with a few left makes up for the rest at its next sync.
#
# Needs the administrator's password, for the list of local users. Exit codes: those of the kit (common.sh).
set -Eeuo pipefail
umask 077
# shellcheck source-path=SCRIPTDIR source=common.sh
source "${BASH_SOURCE[0]%/*}/common.sh"

readonly ADMINISTRATOR=admin
readonly PASSWORD=$CONDUIT_ROOT/secrets/$ADMINISTRATOR.password
readonly CLIENT=$CONDUIT_API/_matrix/client/v3
TOKEN=''

# api METHOD PATH: with the JSON on standard input as its body. The token is no argument of any program; before there is one
# nothing is said of it, for Conduit answers an empty one with 500.
api() {
  curl --silent --show-error --fail --noproxy '*' --max-time 60 --request "$1" --data-binary @- \
    --header 'Content-Type: application/json' --header @<([[ -z $TOKEN ]] || printf 'Authorization: Bearer %s\n' "$TOKEN") "$CLIENT$2"
}

# local_users SERVER_NAME: full names, one a line: what the server answers in the administrators' room.
local_users() {
  local server=$1 room said deadline=$((SECONDS + 30)) encoded
  room=$(api GET "/directory/room/%23admins%3A$server" </dev/null | jq -er .room_id)
  encoded=$(jq -rn --arg room "$room" '$room | @uri')
  jq -n --arg body "@conduit:$server: list-local-users" '{msgtype: "m.text", body: $body}' |
    api PUT "/rooms/$encoded/send/m.room.message/drain-$$-$EPOCHREALTIME" >/dev/null
  until said=$(api GET "/rooms/$encoded/messages?dir=b&limit=10" </dev/null |
    jq -er --arg server "@conduit:$server" '[.chunk[] | select(.type == "m.room.message")][0] | select(.sender == $server) | .content.body'); do
    ((SECONDS < deadline)) || fail 1 "the server does not list its users in \`$room\`" "ask it by hand: \`@conduit:$server: list-local-users\`"
    sleep 0.1
  done
  # "Found N local user account(s):", then a name a line.
  tail -n +2 <<<"$said" | sed -E "s/^@?([^:]+)(:.*)?\$/@\1:$server/"
}

main() {
  local count=$1 server devices
  [[ $count =~ ^[0-9]+$ ]] || fail 2 "\`$count\` is no number of keys" "drain.sh COUNT"
  [[ -s $PASSWORD ]] || fail 3 "\`$PASSWORD\` is missing" "put the administrator's password there"
  server=$(published_key) || fail 1 "\`$CONDUIT_API\` does not say which site it is" "is conduit running there?"
  server=${server%% *}
  TOKEN=$(jq -n --rawfile password "$PASSWORD" --arg user "$ADMINISTRATOR" \
    '{type: "m.login.password", identifier: {type: "m.id.user", user: $user}, password: ($password | rtrimstr("\n")), initial_device_display_name: "drain.sh"}' |
    api POST /login | jq -er .access_token)
  devices=$(local_users "$server" | jq -Rn '{device_keys: ([inputs | {(.): []}] | add)}' | api POST /keys/query |
    jq -e '.device_keys | map_values(map_values("signed_curve25519")) | {one_time_keys: .}')
  for ((i = 0; i < count; i++)); do api POST /keys/claim <<<"$devices" >/dev/null; done
  jq -n '{}' | api POST /logout >/dev/null
  say "drained up to $count one-time keys of each of $(jq '[.one_time_keys[] | length] | add' <<<"$devices") devices"
}

(($# == 1)) || fail 2 "say how many keys" "drain.sh COUNT"
main "$1"
