'use strict'
// The pub's one secret: made at most once, checked whenever it is read, never replaced.
// Run by itself (`init`) it prints {"id":"@...=.ed25519"} and does not start the server.
const crypto = require('crypto')
const fs = require('fs')
const path = require('path')
const ssbKeys = require('ssb-keys')

class IdentityError extends Error {}

// A pub that makes a new secret on an empty volume has lost its owner's identity, so once the id
// is known (`expected`) nothing is made up any more.
function openIdentity ({ dir, expected, seedFile }) {
  const file = path.join(dir, 'secret')
  if (!fs.existsSync(file)) {
    const seed = seedFile && fs.existsSync(seedFile)
    if (expected && !seed) throw new IdentityError(`there is no secret in ${dir}, but PUB_ID=${expected} is expected: wrong or empty volume`)
    putOnce(file, seed ? (tmp) => fs.writeFileSync(tmp, fs.readFileSync(seedFile), { mode: 0o400 }) : (tmp) => ssbKeys.createSync(tmp))
  }
  const keys = readSecret(file)
  if (expected && keys.id !== expected) throw new IdentityError(`the secret in ${dir} is ${keys.id}, but PUB_ID=${expected} is expected: wrong volume`)
  return keys
}

// link() is the lock: it fails when the name is taken, so of two that start together one wins, the
// other reads the winner's secret, and nobody ever sees half a file.
function putOnce (file, write) {
  const tmp = `${file}.${crypto.randomBytes(6).toString('hex')}`
  write(tmp)
  sync(tmp)
  try {
    fs.linkSync(tmp, file)
  } catch (err) {
    if (err.code !== 'EEXIST') throw err
  }
  fs.unlinkSync(tmp)
  sync(path.dirname(file))
}

function sync (name) {
  const fd = fs.openSync(name, 'r')
  try { fs.fsyncSync(fd) } finally { fs.closeSync(fd) }
}

function readSecret (file) {
  const advice = 'nothing was changed; put the right secret back from a backup'
  let keys
  try {
    // read here and not with ssb-keys, which prints the secret's text within its own error
    keys = JSON.parse(fs.readFileSync(file, 'ascii').replace(/\s*#[^\n]*/g, ''))
    if (!ssbKeys.verifyObj(keys, ssbKeys.signObj(keys, { proof: true }))) throw new Error()
    if (keys.id !== `@${keys.public}`) throw new Error()
  } catch (err) {
    throw new IdentityError(err.syscall ? `cannot read ${file} (${err.code}); ${advice}` : `${file} is empty or damaged; ${advice}`)
  }
  return keys
}

module.exports = { openIdentity }

if (require.main === module) {
  const { PUB_DATA: dir = '/data', PUB_ID: expected, PUB_SECRET_FILE: seedFile } = process.env
  try {
    console.log(JSON.stringify({ id: openIdentity({ dir, expected, seedFile }).id }))
  } catch (err) {
    console.error(err.message)
    process.exitCode = 78
  }
}
