'use strict'
// The whitelist: all that can be asked of a pub. Nothing here returns the secret, private messages, a member's
// address or raw muxrpc.
const v8 = require('v8')
const { monitorEventLoopDelay } = require('perf_hooks')
const { promisify } = require('util')
const pull = require('pull-stream')
const ref = require('ssb-ref')
const pkg = require('../package.json')
const { isPrivateHost, refusePrivate } = require('./addresses')
const Refused = require('./refused')

const need = (ok, message) => { if (!ok) throw new Refused('BAD_ARGS', message) }
const isWhole = (n, low, high) => Number.isInteger(n) && n >= low && n <= high
function text (value, max, what) {
  // half a surrogate pair is stored as another character than was signed: our feed would be broken for ever
  need(typeof value === 'string' && value.isWellFormed(), `${what} must be text`)
  need(value.trim() && [...value].length <= max, `${what} must be text of 1 to ${max} characters`)
  return value.trim()
}
function feedId (value) {
  need(ref.isFeed(value), 'id must be a feed id like @...=.ed25519')
  return value
}
function peerAddress (value) {
  need(typeof value === 'string' && value.length < 500, 'address must be text')
  const m = /^(?:net:)?([^~\s]+?):(\d{1,5})(?:~shs:([A-Za-z0-9+/]{43}=)|:(@[A-Za-z0-9+/]{43}=\.ed25519))$/.exec(value.trim())
  need(m && m[2] < 65536, 'address must be net:host:port~shs:key or host:port:@id')
  return { host: m[1], address: `net:${m[1]}:${m[2]}~shs:${m[3] || m[4].slice(1, -8)}` }
}

module.exports = function makeCommands (ssb, { guard, invites, disk, isAlive, ...opts }) {
  const delay = monitorEventLoopDelay({ resolution: 20 })
  delay.enable()

  const publish = promisify((content, cb) => ssb.publish(content, cb))
  const graph = promisify((cb) => ssb.friends.graph(cb))
  const hops = promisify((cb) => ssb.friends.hops({}, cb))
  const aboutSelf = promisify((id, cb) => ssb.aboutSelf.get(id, cb))
  const connect = promisify((address, cb) => ssb.conn.connect(address, { type: 'pub' }, cb))
  const disconnect = promisify((address, cb) => ssb.conn.disconnect(address, cb))
  const addBlob = promisify((bytes, cb) => pull(pull.once(bytes), ssb.blobs.add(cb)))

  const say = async (content) => {
    const msg = await publish(content)
    return { key: msg.key, sequence: msg.value.sequence, type: msg.value.content.type }
  }
  const contact = (id, what) => say({ type: 'contact', contact: feedId(id), ...what })
  const peers = () => ssb.conn.query().peersConnected()

  async function social () {
    const all = await graph()
    const mine = Object.entries(all[ssb.id] || {}).filter(([id]) => id !== ssb.id)
    return {
      following: mine.filter(([, value]) => value >= 0).map(([id]) => id),
      blocking: mine.filter(([, value]) => value === -1).map(([id]) => id),
      followers: Object.keys(all).filter((id) => id !== ssb.id && all[id][ssb.id] >= 0)
    }
  }

  // while the indexes catch up, `status` answers from what was known last
  const last = { clock: {}, social: { following: [], followers: [], blocking: [] } }
  const recent = (what, ask) => Promise.race([
    ask().then((value) => { last[what] = value; return value }),
    new Promise((resolve) => setTimeout(() => resolve(last[what]), 1500))
  ])

  // When the last message of somebody else came in. Kept as they come: nobody has to read the log for it.
  let synced = null
  ssb.db.onMsgAdded(({ kvt }) => { if (kvt.value.author !== ssb.id) synced = Date.now() })

  async function status () {
    const clock = await recent('clock', guard.refresh)
    const { following, followers, blocking } = await recent('social', social)
    const memory = process.memoryUsage()
    const indexing = ssb.db.getStatus ? ssb.db.getStatus().value : null
    const loopDelayMs = { mean: Math.round(delay.mean / 1e5) / 10, max: Math.round(delay.max / 1e5) / 10 }
    delay.reset()
    return {
      id: ssb.id,
      version: pkg.version,
      address: ssb.getAddress('public'),
      uptime: Math.round((Date.now() - opts.started) / 1000),
      sequence: guard.head().sequence,
      restoring: guard.isHolding() ? { floor: guard.floor } : null,
      feeds: Object.keys(clock).length,
      messages: Object.values(clock).reduce((sum, n) => sum + n, 0),
      synced,
      indexed: indexing ? Math.round(indexing.progress * 100) / 100 : null,
      peers: peers().length,
      following: following.length,
      followers: followers.length,
      blocking: blocking.length,
      invites: invites.open(),
      memory: {
        rss: memory.rss,
        heapUsed: memory.heapUsed,
        external: memory.external,
        arrayBuffers: memory.arrayBuffers,
        heapLimit: v8.getHeapStatistics().heap_size_limit
      },
      loopDelayMs,
      disk: await disk()
    }
  }

  const commands = {
    whoami: async () => ({ id: ssb.id }),
    version: async () => ({ image: pkg.version, node: process.version, packages: pkg.dependencies }),
    help: async () => Object.keys(commands),
    health: async () => {
      if (!isAlive()) throw new Refused('UNHEALTHY', `nothing listens on port ${opts.port}`)
      // does not wait for the indexes: they lag for minutes while a lot comes in
      return { id: ssb.id, port: opts.port, sequence: guard.head().sequence, restoring: guard.isHolding() }
    },
    status,
    'feed.head': async () => {
      await guard.refresh()
      return { ...guard.head(), guarded: guard.isHolding(), floor: guard.floor }
    },

    'invite.create': async ({ uses = 1, note }) => {
      need(isWhole(uses, 1, 10000), 'uses must be a whole number from 1 to 10000')
      need(note === undefined || (typeof note === 'string' && [...note].length <= 200), 'note must be text of at most 200 characters')
      if (!opts.externalHost) throw new Refused('NO_HOST', 'this pub has no external host name yet')
      if (!opts.allowPrivate && isPrivateHost(opts.externalHost)) throw new Refused('PRIVATE_HOST', 'the external host is a private address')
      if (guard.isHolding()) throw new Refused('RESTORING', 'this pub is still getting its own feed back')
      return invites.create(uses, note)
    },
    'invite.list': async () => invites.list(),
    'invite.revoke': async ({ id }) => invites.revoke(feedId(id)),

    'profile.get': async ({ id = ssb.id }) => ({ id, ...(await aboutSelf(feedId(id))) }),
    'profile.set': async ({ name, description, image }) => {
      const changes = {}
      if (name !== undefined) changes.name = text(name, 64, 'name')
      if (description !== undefined) changes.description = text(description, 2000, 'description')
      if (image !== undefined) {
        need(ref.isBlob(image), 'image must be a blob id from blob.add')
        changes.image = image
      }
      need(Object.keys(changes).length, 'give a name, a description or an image')
      return say({ type: 'about', about: ssb.id, ...changes })
    },
    'blob.add': async ({ data }) => {
      need(typeof data === 'string' && data.length <= 7e6, 'data must be base64, at most 5 MB')
      const bytes = Buffer.from(data, 'base64')
      need(bytes.length > 0, 'data is empty')
      const id = await addBlob(bytes)
      return { id: id[0] === '&' ? id : '&' + id, bytes: bytes.length }
    },
    'blobs.usage': async () => {
      const { blobs, blobCount } = await disk()
      return { bytes: blobs, count: blobCount }
    },
    post: async (args) => say({ type: 'post', text: text(args.text, 7000, 'text') }),

    follow: async ({ id }) => contact(id, { following: true }),
    unfollow: async ({ id }) => contact(id, { following: false }),
    block: async ({ id, reason }) => {
      need(id !== ssb.id, 'a pub cannot block itself')
      return contact(id, { blocking: true, ...(reason === undefined ? {} : { reason: text(reason, 500, 'reason') }) })
    },
    unblock: async ({ id }) => contact(id, { blocking: false }),
    blocked: async () => (await social()).blocking,
    members: async ({ limit = 500 }) => {
      need(isWhole(limit, 1, 5000), 'limit must be from 1 to 5000')
      const { following } = await social()
      const clock = await guard.refresh()
      return Promise.all(following.slice(0, limit).map(async (id) => {
        const about = await aboutSelf(id)
        return { id, name: (about && about.name) || null, messages: clock[id] || 0 }
      }))
    },
    'friends.counts': async () => {
      const { following, followers, blocking } = await social()
      const byHops = {}
      for (const distance of Object.values(await hops())) byHops[distance] = (byHops[distance] || 0) + 1
      return { following: following.length, followers: followers.length, blocking: blocking.length, byHops }
    },

    // without the address: where a member connects from is nobody's business
    peers: async () => peers().map(([, peer]) => ({ id: peer.key, type: peer.type || null, since: peer.hubUpdated || peer.stateChange || null })),
    'conn.add': async (args) => {
      const { host, address } = peerAddress(args.address)
      if (!opts.allowPrivate) await refusePrivate(host)
      ssb.conn.remember(address, { type: 'pub', autoconnect: true })
      await connect(address)
      return { address, connected: true }
    },
    'conn.forget': async (args) => {
      const { address } = peerAddress(args.address)
      ssb.conn.forget(address)
      await disconnect(address).catch(() => {}) // it may not be connected, which is what was asked for
      return { address, forgotten: true }
    }
  }

  return commands
}
