# Builds the image of a pub. Its tag is made from what is in pub_image/, so only a change there builds anew.

official_base=node:20-bookworm-slim
local_base=local/node:20-bookworm-slim

pub_tag() {
    local file
    find pub_image -type f -not -path '*/node_modules/*' -not -path '*/__pycache__/*' | LC_ALL=C sort |
        while IFS= read -r file; do say "$file"; cat "$file"; done | sha256 | awk '{print "buttcloud-pub:" substr($1, 1, 12)}'
}

image_id() { docker image inspect --format '{{.Id}}' "$1" 2>/dev/null; }

ready_image() {
    local tag id
    [ -f pub_image/Dockerfile ] || die "pub_image/Dockerfile is missing." "Get the whole repository: git status shows what is gone."
    tag=$(pub_tag)
    id=$(image_id "$tag") || { build_image "$tag" && id=$(image_id "$tag"); }
    # Read by the settings. Written in one piece, so that a running service never sees half of it.
    [ "$(cat "$var/pub_image" 2>/dev/null)" = "$id" ] ||
        { say "$id" >"$var/pub_image.new" && mv "$var/pub_image.new" "$var/pub_image"; } || die "$var/pub_image cannot be written."
    pub_image=$tag
}

build_image() {
    need_space 2000 "$root" "$docker_root"
    ready_base
    long_step "Building the pub image $1" image docker_build "$1" ||
        die "The pub image could not be built." "Look at the lines above; most often the npm registry or Debian's mirror is away."
}

# The classic builder, since Debian's docker has no buildx. The host's network reaches whatever npm and apt reach here.
docker_build() {
    local name proxies=()
    for name in http_proxy https_proxy no_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY; do
        [ -z "${!name:-}" ] || proxies+=(--build-arg "$name")
    done
    DOCKER_BUILDKIT=0 docker build --network host --force-rm --build-arg "BASE_IMAGE=$base" ${proxies[@]+"${proxies[@]}"} --tag "$1" pub_image
}

# Sets base: the official Node image, or a stand-in from Debian's and npm's packages where no registry answers.
ready_base() {
    for base in "$official_base" "$local_base"; do
        ! image_id "$base" >/dev/null || return 0
    done
    base=$official_base
    long_step "Pulling $official_base" pull pull_official && return
    say "No container registry answers, so a local base image takes its place."
    base=$local_base
    make_local_base
}

# A dead registry is given up after 20 s, a slow one that answers has ten minutes.
pull_official() {
    local puller began=$SECONDS limit=20 seen
    seen=$(mktemp)
    docker pull "$official_base" >"$seen" 2>&1 &
    puller=$!
    while kill -0 "$puller" 2>/dev/null && [ $((SECONDS - began)) -lt "$limit" ]; do
        sleep 0.2
        ! grep -q 'Pulling fs layer' "$seen" || limit=600
    done
    kill "$puller" 2>/dev/null && say "no answer within $limit s"
    cat "$seen"
    rm -f "$seen"
    wait "$puller"
}

make_local_base() {
    local missing=()
    can_apt || die "The Node base image could not be pulled, and a local one can be made by root on Debian only." \
        "Run this where a container registry is reachable, or once: sudo scripts/setup.sh image"
    have debootstrap || missing+=(debootstrap)
    have npm || missing+=(npm)
    [ -f /etc/ssl/certs/ca-certificates.crt ] || missing+=(ca-certificates)
    [ ${#missing[@]} -eq 0 ] || apt_install "no registry answers, so the base image is made here" "${missing[@]}" ||
        die "What makes the base image could not be installed: ${missing[*]}."
    need_space 1000 "${TMPDIR:-/tmp}"
    long_step "Making the base image $local_base from Debian's packages (about a minute, once)" base pub_image/make-base.sh "$local_base" ||
        die "The base image could not be made." "Look at the lines above; most often the npm registry or Debian's mirror is away."
}
