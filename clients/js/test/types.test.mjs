// The types match the module.

import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { test } from 'node:test'
import * as murre from '../murre.js'
import { root } from './support.mjs'

test('a correct program compiles in strict mode, and a wrong one does not', () => {
  const tsc = root('clients/js/node_modules/typescript/bin/tsc')
  const project = root('clients/js/test/tsconfig.json')
  const { stdout, status } = spawnSync(process.execPath, [tsc, '--project', project])
  assert.equal(status, 0, String(stdout))
})

test('the module exports everything that the types declare', () => {
  assert.deepEqual(Object.keys(murre).sort(), ['Murre', 'MurreError'])
  const methods = ['on', 'subscribe', 'publish', 'history', 'request', 'serve']
  for (const method of [...methods, 'authenticate', 'connect', 'close']) {
    assert.equal(typeof murre.Murre.prototype[method], 'function', method)
  }
})
