'use strict'
// ssb-invite keeps its codes in a closed database: no list, no revoke. So keep a ledger beside it,
// and refuse a revoked code where it signs in.
const path = require('path')
const { promisify } = require('util')
const ssbKeys = require('ssb-keys')
const { readJson, writeJson } = require('./files')
const Refused = require('./refused')

module.exports = function openInvites (ssb, { dir, isHolding }) {
  const file = path.join(dir, 'invite-ledger.json')
  const ledger = readJson(file)
  const save = () => writeJson(file, ledger)
  const left = (invite) => invite.revoked ? 0 : Math.max(0, invite.uses - invite.used)

  ssb.on('log:info', (args) => {
    const [what, id] = Array.isArray(args) ? args : []
    if (what !== 'invite' || !ledger[id]) return
    ledger[id].used++
    ledger[id].lastUsed = Date.now()
    save()
  })
  ssb.auth.hook(function (fn, args) {
    const [id, cb] = args
    if (ledger[id] && ledger[id].revoked) return cb(new Error('invite revoked'))
    // ssb-invite counts a use before it publishes the follow: do not let a guarded pub burn invites
    if (ledger[id] && isHolding()) return cb(new Error('pub is being restored, try again later'))
    return fn.apply(this, args)
  })

  return {
    // The note stays here: ssb-invite would publish it, for ever, with each follow.
    create: async (uses, note) => {
      const code = await promisify((opts, cb) => ssb.invite.create(opts, cb))({ uses })
      const seed = Buffer.from(code.split('~').pop(), 'base64')
      const { id } = ssbKeys.generate('ed25519', seed)
      ledger[id] = { uses, used: 0, note: note || null, created: Date.now() }
      save()
      return { invite: code, id, uses }
    },
    list: () => Object.entries(ledger).map(([id, invite]) => ({ id, ...invite, left: left(invite) })),
    revoke: (id) => {
      if (!ledger[id]) throw new Refused('NOT_FOUND', 'no such invite')
      ledger[id].revoked = ledger[id].revoked || Date.now()
      save()
      return { id, revoked: true }
    },
    open: () => Object.values(ledger).filter((invite) => left(invite) > 0).length
  }
}
