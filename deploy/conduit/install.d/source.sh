# shellcheck shell=bash disable=SC2034 # sourced by install.sh: variables are shared with its other parts
# Where the server comes from, and whether it is what it should be.  Nothing is executed before its checksum is right.

# --- the pinned release ----------------------------------------------------------------------------------------------
# A CI job's artifact: unlike `master`, a job's artifact does not move.  Upstream signs nothing, so the digest is the pin.
PINNED_VERSION=0.10.12
PINNED_SHA256=589867ce1a0fb07c104feae8f0d5e15aee8328983bdc4ebc488d46a86ea5f63b
PINNED_URL='https://gitlab.com/famedly/conduit/-/jobs/12572491120/artifacts/raw/x86_64-unknown-linux-musl?inline=false'
# ---------------------------------------------------------------------------------------------------------------------

SOURCE=    # the verified file; empty when the wanted release is installed already
DIGEST=    # its SHA-256
PROGRAMS=(fleet-bootstrap fleet-preflight)
declare -A PROGRAM=() # those of them that the bundle has: name -> SHA-256

# digest_of FILE: its SHA-256 in REPLY.  By openssl: Debian 12's sha256sum does not use the processor's instructions and
# takes four times as long, for a server of 60 MB a good part of the installation.
digest_of() {
  read -r REPLY _ < <(openssl dgst -sha256 -r "$1" 2>/dev/null) || fail 1 "cannot read \`$1\`" "check the file and the disk (dmesg)"
}

# choose_source: sets SOURCE, DIGEST, PROGRAM; refuses what is damaged, foreign or of another version.
choose_source() {
  if [[ -n $BUNDLE ]]; then take_bundle; fi
  if [[ -n $BINARY ]]; then
    take_binary "$BINARY" "${SHA256:-$PINNED_SHA256}"
  elif [[ -z $DIGEST ]]; then
    take_download
  fi
  RELEASE=$VERSION-${DIGEST:0:12}
}

take_bundle() {
  local sums=$BUNDLE/SHA256SUMS digest name
  local -A listed=()
  [[ -d $BUNDLE ]] || fail 3 "no bundle directory \`$BUNDLE\`" "copy the bundle there, or pass an empty \`--bundle\` to download"
  [[ -f $sums ]] || fail 3 "the bundle \`$BUNDLE\` has no \`SHA256SUMS\`" "make it: (cd $BUNDLE && sha256sum conduit fleet-* >SHA256SUMS)"
  # All files first: a bundle that is damaged anywhere is not used at all.
  while read -r digest name; do
    name=${name#\*} name=${name#./}
    [[ $digest =~ ^[0-9a-f]{64}$ && -n $name && $name != */* ]] ||
      fail 3 "\`$sums\` has the line \`$digest $name\`, not in the form of \`sha256sum\`" "it is damaged; copy the bundle again"
    [[ -f $BUNDLE/$name ]] || fail 3 "the bundle \`$BUNDLE\` lacks \`$name\`, which its \`SHA256SUMS\` lists" "it is incomplete; copy it again"
    digest_of "$BUNDLE/$name"
    [[ $REPLY == "$digest" ]] || fail 3 "\`$BUNDLE/$name\` does not match \`SHA256SUMS\`: it has \`$REPLY\`, expected \`$digest\`" "it is damaged; copy it again"
    listed[$name]=$digest
  done <"$sums"
  for name in conduit "${PROGRAMS[@]}"; do
    [[ ! -e $BUNDLE/$name || -n ${listed[$name]-} ]] ||
      fail 3 "\`$BUNDLE/$name\` is not listed in \`SHA256SUMS\`" "nothing is used without a checksum; add its line"
  done
  for name in "${PROGRAMS[@]}"; do
    if [[ -n ${listed[$name]-} ]]; then PROGRAM[$name]=${listed[$name]}; fi
  done
  if [[ -n ${listed[conduit]-} && -z $BINARY ]]; then
    SOURCE=$BUNDLE/conduit DIGEST=${listed[conduit]}
    [[ -z $SHA256 || $DIGEST == "$SHA256" ]] ||
      fail 3 "\`$SOURCE\` has SHA-256 \`$DIGEST\`, \`--sha256\` says \`$SHA256\`" "this is not the file you mean"
    check_program "$SOURCE"
  fi
}

# take_binary FILE SHA256
take_binary() {
  [[ -f $1 ]] || fail 3 "no file \`$1\`" "give the path of a conduit binary to \`--binary\`"
  digest_of "$1"
  [[ $REPLY == "$2" ]] || fail 3 "\`$1\` has SHA-256 \`$REPLY\`, expected \`$2\`" \
    "it is damaged or another build; if it is your own build say so: \`--sha256 $REPLY\`"
  SOURCE=$1 DIGEST=$REPLY
  check_program "$1"
}

take_download() {
  local url=${URL:-$PINNED_URL}
  DIGEST=${SHA256:-$PINNED_SHA256}
  local installed=$ROOT/releases/$VERSION-${DIGEST:0:12}/conduit
  if [[ -f $installed ]]; then
    digest_of "$installed"
    if [[ $REPLY == "$DIGEST" ]]; then return; fi
  fi
  [[ -n $URL || $(uname -m) == x86_64 ]] ||
    fail 3 "the pinned release is for x86_64, this machine is \`$(uname -m)\`" "build Conduit $VERSION and pass \`--binary FILE --sha256 HEX\`"
  SOURCE=$TEMP/conduit
  if change download "$url"; then
    local progress=(--silent --show-error)
    if [[ -t 2 ]]; then progress=(--progress-bar); fi
    curl --fail --location --proto '=https,http' --connect-timeout 10 --max-time 900 --retry 2 "${progress[@]}" --output "$SOURCE" "$url" ||
      fail 3 "cannot download \`$url\`" "offline? copy a bundle to the machine and pass \`--bundle DIR\`"
    chmod 0755 "$SOURCE"
    take_binary "$SOURCE" "$DIGEST"
  fi
}

# check_program FILE: is it Conduit, of the wanted version?  Its checksum is right by now.
check_program() {
  local output
  [[ -x $1 ]] || fail 3 "\`$1\` is not executable" "chmod +x $1; or is it not the server at all?"
  output=$(env --ignore-environment NO_COLOR=1 timeout 10 "$1" --version 2>&1 </dev/null) ||
    fail 3 "\`$1 --version\` failed: ${output:0:200}" "it does not run on this machine, or it is not Conduit"
  output=${output%%$'\n'*}
  [[ $output == conduit\ * ]] || fail 3 "\`$1\` is another program: \`--version\` says \`${output:0:80}\`" "expected \`conduit $VERSION\`"
  [[ $output == "conduit $VERSION" ]] ||
    fail 3 "\`$1\` is \`${output:0:80}\`, expected \`conduit $VERSION\`" "if you mean it: \`--version ${output#conduit }\`"
}

# ensure_release: puts the server and the tools in place; each is copied, read back, then renamed.
ensure_release() {
  local name path=$ROOT/releases/$RELEASE/conduit
  ensure_dir "${path%/*}" 0755 root:root
  ensure_program "$path" "$SOURCE" "$DIGEST"
  for name in "${PROGRAMS[@]}"; do
    if [[ -n ${PROGRAM[$name]-} ]]; then ensure_program "$ROOT/bin/$name" "$BUNDLE/$name" "${PROGRAM[$name]}"; fi
  done
}

# ensure_program PATH SOURCE DIGEST
ensure_program() {
  local path=$1 verb=create
  if [[ -f $path ]]; then
    digest_of "$path"
    if [[ $REPLY == "$3" && ${META[$path]-} == "755 root:root" ]]; then return; fi
    verb=replace
  fi
  if change "$verb" "$path" "(0755 root:root)"; then
    install --mode=0755 --owner=root --group=root "$2" "$path.new~"
    digest_of "$path.new~"
    [[ $REPLY == "$3" ]] || fail 1 "the copy \`$path.new~\` differs from \`$2\`" "the disk is failing (dmesg) or the source changed meanwhile"
    mv --force --no-target-directory "$path.new~" "$path"
  fi
}
