-- Wireshark dissector of the Trunkline protocol (docs/protocol.md), tested with Wireshark 4.0.
--
--   trunkline         packets as they are on the wire (UDP): headers; payloads are sealed
--   trunkline_clear   packets in the clear, from a capture that an engine wrote itself
--   trunkline_stream  frames inside TLS
--
-- How to install and use it: docs/wireshark.md.

set_plugin_info({
  version = "1",
  description = "Trunkline: connections and channels over UDP or TLS",
})

local VERSION = 0x54524b01
local CONTROL, TRANSPORT = 0, 0xffff
local SHORT_HEADER, TAG = 13, 16
local DATA_PACKET = 16
local SEALED = "Sealed. To see frames, capture with Trunkline itself: EngineConfig::capture, or --pcap"

local PACKET_TYPES = {
  [0] = "ConnectionRequest", [1] = "Retry", [2] = "ConnectionResponse",
  [3] = "AuthenticationRequest", [4] = "VersionList", [DATA_PACKET] = "Data",
}
local LEVELS = { [0] = "Initial", [1] = "Handshake" }
local TRANSPORT_TYPES = {
  [1] = "PING", [2] = "ACK", [3] = "CREDIT", [4] = "EARLY_CREDIT", [5] = "CHANNEL_RESET",
  [6] = "CHANNEL_STOP", [7] = "CLOSE", [8] = "CLOSE_ACK", [9] = "PATH_CHALLENGE",
  [10] = "PATH_RESPONSE", [11] = "NEW_CONNECTION_ID", [12] = "RETIRE_CONNECTION_ID",
  [13] = "ACK_FREQUENCY", [14] = "CRYPTO",
}
local REASONS = {
  [1000] = "application", [1001] = "declined by the application", [3001] = "engine shut down",
  [3002] = "local limit reached", [3003] = "network unreachable", [3004] = "superseded",
  [4001] = "timeout", [4002] = "bad crypto", [4003] = "certificate not accepted",
  [4004] = "authentication failed", [4005] = "protocol error", [4006] = "no common version",
  [4007] = "peer lost its state", [4008] = "refused", [5001] = "unclassified",
  [5002] = "internal error", [5003] = "linger expired",
}
local KINDS = { [0] = "bytes", [1] = "messages", [2] = "datagrams" }
local ACTIVITIES = { [0] = "active", [1] = "idle", [2] = "retiring" }
local PARAMETERS = {
  [0] = "original_destination_id", [1] = "connected_timeout_ms", [2] = "reset_token",
  [3] = "max_packet", [4] = "control_window", [5] = "early_data", [6] = "max_channels",
  [7] = "max_message", [8] = "max_datagram", [9] = "ack_eliciting_threshold",
  [11] = "max_ack_delay_us", [15] = "initial_source_id", [16] = "retry_source_id",
}
-- Parameters that are bytes and no numbers.
local BYTE_PARAMETERS = { [0] = true, [2] = true, [15] = true, [16] = true }
-- Messages of CONTROL that begin with a number: name, then name and type of each element.
local CONTROL_MESSAGES = {
  [1] = { "AuthenticationRequest", { "credential", "bin" } },
  [2] = { "AuthenticationResponse", { "accepted", "bool" }, { "reason", "uint" }, { "text", "str" } },
  [3] = { "Activity", { "level", "uint" }, { "count", "uint" }, { "answers", "uint" } },
  [16] = { "Parameters", { "parameters", "bin" } },
  [17] = { "Consumed", { "position", "uint" } },
  [18] = { "Ping" },
  [19] = { "Credit", { "channel", "uint" }, { "limit", "uint" } },
  [20] = { "ChannelReset", { "channel", "uint" }, { "code", "uint" }, { "final_offset", "uint" } },
  [21] = { "ChannelStop", { "channel", "uint" }, { "code", "uint" } },
  [22] = { "Close", { "reason", "uint" }, { "discarded", "bool" }, { "text", "str" } },
  [23] = { "CloseAck" },
}

local trunkline = Proto("trunkline", "Trunkline")
local clear = Proto("trunkline_clear", "Trunkline, in the clear")
local stream = Proto("trunkline_stream", "Trunkline stream link")

local f = {
  packet_type = ProtoField.uint8("trunkline.packet.type", "Packet type", base.DEC, PACKET_TYPES),
  level = ProtoField.uint8("trunkline.packet.level", "Level", base.DEC, LEVELS),
  key_phase = ProtoField.uint8("trunkline.packet.key_phase", "Key phase", base.DEC),
  version = ProtoField.uint32("trunkline.version", "Version", base.HEX),
  dcid = ProtoField.bytes("trunkline.dcid", "Destination connection id"),
  scid = ProtoField.bytes("trunkline.scid", "Source connection id"),
  token = ProtoField.bytes("trunkline.token", "Token"),
  number_low = ProtoField.uint32("trunkline.packet.number_low", "Packet number, low 32 bits"),
  number = ProtoField.uint64("trunkline.packet.number", "Packet number"),
  packet_length = ProtoField.uint16("trunkline.packet.length", "Length of the sealed payload"),
  sealed = ProtoField.bytes("trunkline.packet.sealed", "Sealed payload and tag"),
  note = ProtoField.string("trunkline.packet.note", "Note"),
  retry_tag = ProtoField.bytes("trunkline.retry.tag", "Integrity tag"),
  known_version = ProtoField.uint32("trunkline.version_list.version", "Version", base.HEX),
  padding = ProtoField.bytes("trunkline.padding", "Padding"),
  sent = ProtoField.uint8("trunkline.direction", "Direction", base.DEC,
    { [0] = "received", [1] = "sent" }),
  shard = ProtoField.uint8("trunkline.shard", "Shard"),
  connection = ProtoField.uint64("trunkline.connection", "Connection", base.HEX),
  frame = ProtoField.none("trunkline.frame", "Frame"),
  channel = ProtoField.uint16("trunkline.channel", "Channel"),
  length = ProtoField.uint16("trunkline.frame.length", "Length of the body"),
  extra = ProtoField.bytes("trunkline.frame.extra", "Offset, or message and fragment"),
  offset = ProtoField.uint64("trunkline.frame.offset", "Stream offset"),
  message = ProtoField.uint32("trunkline.frame.message", "Message id"),
  fragment = ProtoField.uint8("trunkline.frame.fragment", "Fragment"),
  fragments = ProtoField.uint8("trunkline.frame.fragments", "Fragments"),
  kind = ProtoField.uint8("trunkline.kind", "Kind", base.DEC, KINDS),
  eof = ProtoField.bool("trunkline.frame.eof", "End of the channel"),
  data = ProtoField.bytes("trunkline.data", "Data"),
  transport = ProtoField.uint8("trunkline.transport.type", "TRANSPORT frame", base.HEX,
    TRANSPORT_TYPES),
  ack_largest = ProtoField.uint64("trunkline.ack.largest", "Largest"),
  ack_delay = ProtoField.uint64("trunkline.ack.delay", "Delay (µs)"),
  ack_flags = ProtoField.uint8("trunkline.ack.flags", "Flags", base.HEX),
  ack_count = ProtoField.uint64("trunkline.ack.ranges", "Additional ranges"),
  ack_first = ProtoField.uint64("trunkline.ack.first", "First range"),
  ack_gap = ProtoField.uint64("trunkline.ack.gap", "Gap"),
  ack_length = ProtoField.uint64("trunkline.ack.length", "Range"),
  ack_ecn = ProtoField.uint64("trunkline.ack.ecn", "ECN count"),
  limit = ProtoField.uint64("trunkline.limit", "Limit"),
  of_channel = ProtoField.uint16("trunkline.of_channel", "Of channel"),
  code = ProtoField.uint32("trunkline.code", "Code"),
  final_offset = ProtoField.uint64("trunkline.final_offset", "Final offset"),
  reason = ProtoField.uint32("trunkline.reason", "Reason", base.DEC, REASONS),
  discarded = ProtoField.bool("trunkline.discarded", "Received data was discarded"),
  text = ProtoField.string("trunkline.text", "Text"),
  challenge = ProtoField.bytes("trunkline.path.challenge", "Challenge"),
  sequence = ProtoField.uint64("trunkline.id.sequence", "Sequence"),
  retire = ProtoField.uint64("trunkline.id.retire_prior_to", "Retire prior to"),
  new_id = ProtoField.bytes("trunkline.id", "Connection id"),
  reset_token = ProtoField.bytes("trunkline.id.reset_token", "Reset token"),
  threshold = ProtoField.uint64("trunkline.ack_frequency.threshold", "Threshold"),
  max_delay = ProtoField.uint64("trunkline.ack_frequency.max_delay", "Largest delay (µs)"),
  crypto_offset = ProtoField.uint64("trunkline.crypto.offset", "Offset"),
  crypto_data = ProtoField.bytes("trunkline.crypto.data", "TLS bytes"),
  control = ProtoField.string("trunkline.control", "CONTROL message"),
  name = ProtoField.string("trunkline.control.name", "Name"),
  is_answer = ProtoField.bool("trunkline.control.is_answer", "Answer"),
  option = ProtoField.string("trunkline.control.option", "Option"),
  credential = ProtoField.bytes("trunkline.control.credential", "Credential"),
  accepted = ProtoField.bool("trunkline.control.accepted", "Accepted"),
  activity = ProtoField.uint8("trunkline.control.activity", "Activity", base.DEC, ACTIVITIES),
  count = ProtoField.uint32("trunkline.control.count", "Count"),
  answers = ProtoField.uint32("trunkline.control.answers", "Answers"),
  position = ProtoField.uint64("trunkline.control.position", "Position"),
  parameter = ProtoField.string("trunkline.parameter", "Parameter"),
}
local fields = {}
for _, field in pairs(f) do fields[#fields + 1] = field end
trunkline.fields = fields

local e_malformed = ProtoExpert.new("trunkline.malformed", "Malformed",
  expert.group.MALFORMED, expert.severity.ERROR)
local e_close = ProtoExpert.new("trunkline.closing", "The connection ends",
  expert.group.SEQUENCE, expert.severity.NOTE)
trunkline.experts = { e_malformed, e_close }

-- ---- reading

-- What is wrong with the bytes, thrown by a reader and caught where a packet or frame ends.
local function malformed(what) error({ malformed = what }, 0) end

-- Runs `body`; what it throws becomes an expert item. Gives whether all went well.
local function guarded(tree, body)
  local ok, problem = pcall(body)
  if not ok then
    local what = type(problem) == "table" and problem.malformed or tostring(problem)
    tree:add_proto_expert_info(e_malformed, "Malformed: " .. what)
  end
  return ok
end

local Reader = {}
Reader.__index = Reader

-- Reads `tvb` from `at` up to `stop`, and never beyond.
local function reader(tvb, at, stop) return setmetatable({ tvb = tvb, at = at, stop = stop }, Reader) end

function Reader:left() return self.stop - self.at end

function Reader:take(n, what)
  if n > self:left() then malformed(what .. " is cut off") end
  self.at = self.at + n
  if n == 0 then return nil end
  return self.tvb(self.at - n, n)
end

-- A number of `n` bytes, at most 4.
function Reader:uint(n, what)
  local range = self:take(n, what)
  return range:uint(), range
end

-- Adds bytes to the tree; nothing when there are none.
function Reader:bytes(tree, field, n, what)
  local range = self:take(n, what)
  if range then tree:add(field, range) end
  return range
end

function Reader:add(tree, field, n, what)
  local value, range = self:uint(n, what)
  tree:add(field, range, value)
  return value
end

-- A varint, as a number (exact below 2^53) and as 64 bits.
function Reader:varint(what)
  local from = self.at
  local first = self:uint(1, what)
  local size = 2 ^ math.floor(first / 64)
  self.at = from
  local range = self:take(size, what)
  local high, low = 0, 0
  if size == 8 then
    high, low = range(0, 4):uint() % 2 ^ 30, range(4, 4):uint()
  else
    low = range:uint() % 2 ^ (size * 8 - 2)
  end
  return high * 2 ^ 32 + low, UInt64.new(low, high), range
end

function Reader:add_varint(tree, field, what)
  local value, exact, range = self:varint(what)
  tree:add(field, range, exact)
  return value
end

function Reader:finish(what)
  if self:left() > 0 then malformed(what .. " is longer than its fields") end
end

-- ---- msgpack

local MAX_NESTING = 8
local CUT = { malformed = "cut" }

-- Reads a big-endian number of up to 8 bytes: as a number, and its 64 bits.
local function msg_uint(r, n)
  if n > r:left() then error(CUT, 0) end
  local range = r:take(n, "number")
  if n == 8 then
    local high, low = range(0, 4):uint(), range(4, 4):uint()
    return high * 2 ^ 32 + low, UInt64.new(low, high)
  end
  return range:uint(), UInt64.new(range:uint(), 0)
end

local msg_value

local function msg_items(r, kind, n, depth)
  local items = {}
  for i = 1, n do items[i] = msg_value(r, depth + 1) end
  return { type = kind, items = items }
end

local function msg_bytes(r, kind, n)
  if n > r:left() then error(CUT, 0) end
  local range = r:take(n, "text")
  return { type = kind, bytes = range, text = range and range:string() or "" }
end

local function msg_number(r, n, signed)
  local value, exact = msg_uint(r, n)
  if signed and value >= 2 ^ (8 * n - 1) then
    return { type = "int", value = value - 2 ^ (8 * n) }
  end
  return { type = "uint", value = value, exact = exact }
end

-- One value. Throws CUT when it goes on behind the end.
function msg_value(r, depth)
  if depth > MAX_NESTING then malformed("CONTROL message nests too deep") end
  local from = r.at
  local b = msg_uint(r, 1)
  local value
  if b < 0x80 then value = { type = "uint", value = b, exact = UInt64.new(b, 0) }
  elseif b < 0x90 then value = msg_items(r, "map", 2 * (b - 0x80), depth)
  elseif b < 0xa0 then value = msg_items(r, "array", b - 0x90, depth)
  elseif b < 0xc0 then value = msg_bytes(r, "str", b - 0xa0)
  elseif b == 0xc0 then value = { type = "nil" }
  elseif b == 0xc2 or b == 0xc3 then value = { type = "bool", value = b == 0xc3 }
  elseif b >= 0xc4 and b <= 0xc6 then value = msg_bytes(r, "bin", (msg_uint(r, 2 ^ (b - 0xc4))))
  elseif b >= 0xc7 and b <= 0xc9 then
    value = msg_bytes(r, "ext", (msg_uint(r, 2 ^ (b - 0xc7))) + 1)
  elseif b == 0xca or b == 0xcb then value = msg_bytes(r, "float", b == 0xca and 4 or 8)
  elseif b >= 0xcc and b <= 0xcf then value = msg_number(r, 2 ^ (b - 0xcc), false)
  elseif b >= 0xd0 and b <= 0xd3 then value = msg_number(r, 2 ^ (b - 0xd0), true)
  elseif b >= 0xd4 and b <= 0xd8 then value = msg_bytes(r, "ext", 2 ^ (b - 0xd4) + 1)
  elseif b >= 0xd9 and b <= 0xdb then value = msg_bytes(r, "str", (msg_uint(r, 2 ^ (b - 0xd9))))
  elseif b == 0xdc or b == 0xdd then
    value = msg_items(r, "array", (msg_uint(r, 2 ^ (b - 0xdb))), depth)
  elseif b == 0xde or b == 0xdf then
    value = msg_items(r, "map", 2 * msg_uint(r, 2 ^ (b - 0xdd)), depth)
  elseif b >= 0xe0 then value = { type = "int", value = b - 0x100 }
  else malformed("CONTROL message has no valid type") end
  value.range = r.tvb(from, r.at - from)
  return value
end

local function msg_text(value)
  if value.bytes or value.text then return value.text end
  if value.type == "nil" then return "nil" end
  return tostring(value.exact or value.value or value.type)
end

-- ---- what is remembered of connections

-- Kind of each channel, by connection and channel: the newest last, with the packet that says so.
local kinds = {}
-- Where messages of CONTROL begin, by connection and direction, and offset.
local boundaries = {}
function trunkline.init() kinds, boundaries = {}, {} end

local function learn_kind(cx, channel, kind)
  local key = cx.key .. "/" .. channel
  local list = kinds[key] or {}
  kinds[key] = list
  local last = list[#list]
  if not last or last.at < cx.pinfo.number then
    list[#list + 1] = { at = cx.pinfo.number, kind = kind }
  end
end

local function kind_of(cx, channel)
  local found
  for _, entry in ipairs(kinds[cx.key .. "/" .. channel] or {}) do
    if entry.at <= cx.pinfo.number then found = entry.kind end
  end
  return found
end

local function note(cx, text)
  if #cx.info < 12 then cx.info[#cx.info + 1] = text
  elseif #cx.info == 12 then cx.info[13] = "…" end
end

-- ---- CONTROL

local function parameters(r, tree)
  while r:left() > 0 do
    local from = r.at
    local id = r:varint("parameter")
    local len = r:varint("parameter length")
    local value = reader(r.tvb, r.at, r.at + len)
    r:take(len, "parameter")
    local text
    if BYTE_PARAMETERS[id] or not PARAMETERS[id] then
      local range = value:take(len, "parameter")
      text = range and tostring(range:bytes()) or ""
    else
      local _, exact = value:varint("parameter value")
      value:finish("parameter")
      text = tostring(exact)
    end
    local name = PARAMETERS[id] or string.format("unknown 0x%x", id)
    tree:add(f.parameter, r.tvb(from, r.at - from), name .. " = " .. text)
  end
end

local ELEMENTS = {
  credential = f.credential, accepted = f.accepted, reason = f.reason, text = f.text,
  level = f.activity, count = f.count, answers = f.answers, position = f.position,
  channel = f.of_channel, limit = f.limit, code = f.code, final_offset = f.final_offset,
  discarded = f.discarded,
}
local WIDE = { position = true, limit = true, final_offset = true }

local function control_element(tree, name, kind, value)
  if value.type ~= kind then malformed("CONTROL: " .. name .. " has another type") end
  if name == "parameters" then
    if value.bytes then
      local bytes = value.bytes
      parameters(reader(bytes:tvb(), 0, bytes:len()), tree)
    end
  elseif kind == "bin" then
    if value.bytes then tree:add(ELEMENTS[name], value.bytes) end
  elseif kind == "str" then
    tree:add(ELEMENTS[name], value.range, value.text)
  elseif WIDE[name] then
    tree:add(ELEMENTS[name], value.range, value.exact)
  elseif kind == "uint" and value.value >= 2 ^ 32 then
    malformed("CONTROL: " .. name .. " is out of range")
  else
    tree:add(ELEMENTS[name], value.range, value.value)
  end
end

local function channel_request(cx, tree, items)
  local name, channel, answer, options = items[1], items[2], items[3], items[4]
  if not answer or channel.type ~= "uint" or channel.value > 0xffff or answer.type ~= "bool" then
    malformed("ChannelRequest")
  end
  tree:add(f.control, name.range, "ChannelRequest")
  tree:add(f.name, name.range, name.text)
  tree:add(f.of_channel, channel.range, channel.value)
  tree:add(f.is_answer, answer.range, answer.value)
  local kind, declined = 0, false
  if options and options.type == "map" then
    for i = 1, #options.items, 2 do
      local key, value = options.items[i], options.items[i + 1]
      local range = cx.tvb(key.range:offset(),
        value.range:offset() + value.range:len() - key.range:offset())
      tree:add(f.option, range, msg_text(key) .. " = " .. msg_text(value))
      if key.text == "kind" and value.type == "uint" then
        kind = value.value
        if kind <= 255 then tree:add(f.kind, value.range, kind) end
      end
      declined = declined or key.text == "declined"
    end
  end
  if not answer.value then learn_kind(cx, channel.value, kind) end
  local what = answer.value and (declined and "declines" or "accepts") or "asks for"
  return string.format("%s channel %d \"%s\"", what, channel.value, name.text)
end

-- One message, already read.
local function control_message(cx, tree, value)
  local first = value.type == "array" and value.items[1]
  if not first then malformed("CONTROL message is no array with elements") end
  if first.type == "str" then return channel_request(cx, tree, value.items) end
  if first.type ~= "uint" then malformed("CONTROL message has no type") end
  local shape = CONTROL_MESSAGES[first.value]
  if not shape then
    tree:add(f.control, first.range, "unknown " .. first.value)
    return "unknown message"
  end
  tree:add(f.control, first.range, shape[1])
  for i = 2, #shape do
    local element = value.items[i]
    if element then control_element(tree, shape[i][1], shape[i][2], element)
    elseif first.value ~= 3 then malformed(shape[1] .. " has too few elements") end
  end
  if shape[1] == "Close" then
    tree:add_proto_expert_info(e_close, "Close: " .. msg_text(value.items[2]))
  end
  return shape[1]
end

-- The messages in the bytes of CONTROL at `offset` of its stream (nil: wherever they are, a message
-- begins).
local function control(cx, tree, tvb, at, stop, offset)
  local known
  if offset then
    local key = cx.key .. (cx.sent and ">" or "<")
    known = boundaries[key] or { [0] = true }
    boundaries[key] = known
  end
  local from = at
  while at < stop do
    if known and not known[offset + at - from] then
      tree:add(f.data, tvb(at, stop - at)):append_text(" (inside a message)")
      note(cx, "CONTROL")
      return
    end
    local r = reader(tvb, at, stop)
    local ok, value = pcall(msg_value, r, 1)
    if not ok and value == CUT then
      tree:add(f.data, tvb(at, stop - at)):append_text(" (a message that goes on)")
      note(cx, "CONTROL")
      return
    end
    if not ok then error(value, 0) end
    local item = tree:add(f.control, tvb(at, r.at - at), "")
    item:set_text("CONTROL message")
    local said = control_message(cx, item, value)
    item:set_text("CONTROL: " .. said)
    note(cx, said)
    at = r.at
    if known then known[offset + at - from] = true end
  end
end

-- ---- TRANSPORT

local function ack(r, tree)
  local largest = r:add_varint(tree, f.ack_largest, "ACK")
  r:add_varint(tree, f.ack_delay, "ACK")
  local flags = r:add(tree, f.ack_flags, 1, "ACK")
  if flags > 1 then malformed("ACK flags") end
  local count = r:add_varint(tree, f.ack_count, "ACK")
  if count > 63 then malformed("ACK has too many ranges") end
  local smallest = largest - r:add_varint(tree, f.ack_first, "ACK")
  for _ = 1, count do
    local gap = r:add_varint(tree, f.ack_gap, "ACK")
    smallest = smallest - gap - 2 - r:add_varint(tree, f.ack_length, "ACK")
  end
  if smallest < 0 then malformed("ACK of a negative number") end
  if flags == 1 then
    for _ = 1, 3 do r:add_varint(tree, f.ack_ecn, "ACK") end
  end
  return string.format("ACK %.0f", largest)
end

local function close(r, tree)
  local reason = r:add(tree, f.reason, 4, "CLOSE")
  r:add(tree, f.discarded, 1, "CLOSE")
  local len = r:uint(1, "CLOSE")
  local range = r:take(len, "CLOSE")
  if range then tree:add(f.text, range) end
  tree:add_proto_expert_info(e_close, "CLOSE " .. reason)
  return "CLOSE " .. reason
end

-- What stands behind the type byte; each may give its own words for the info column.
local TRANSPORT_BODIES = {
  [2] = ack,
  [3] = function(r, tree)
    r:add(tree, f.of_channel, 2, "CREDIT")
    r:add_varint(tree, f.limit, "CREDIT")
  end,
  [4] = function(r, tree) r:add_varint(tree, f.limit, "EARLY_CREDIT") end,
  [5] = function(r, tree)
    r:add(tree, f.of_channel, 2, "CHANNEL_RESET")
    r:add(tree, f.code, 4, "CHANNEL_RESET")
    r:add_varint(tree, f.final_offset, "CHANNEL_RESET")
  end,
  [6] = function(r, tree)
    r:add(tree, f.of_channel, 2, "CHANNEL_STOP")
    r:add(tree, f.code, 4, "CHANNEL_STOP")
  end,
  [7] = close,
  [9] = function(r, tree) r:bytes(tree, f.challenge, 8, "PATH_CHALLENGE") end,
  [10] = function(r, tree) r:bytes(tree, f.challenge, 8, "PATH_RESPONSE") end,
  [11] = function(r, tree)
    r:add_varint(tree, f.sequence, "NEW_CONNECTION_ID")
    r:add_varint(tree, f.retire, "NEW_CONNECTION_ID")
    r:bytes(tree, f.new_id, 8, "NEW_CONNECTION_ID")
    r:bytes(tree, f.reset_token, 16, "NEW_CONNECTION_ID")
  end,
  [12] = function(r, tree) r:add_varint(tree, f.sequence, "RETIRE_CONNECTION_ID") end,
  [13] = function(r, tree)
    r:add_varint(tree, f.threshold, "ACK_FREQUENCY")
    r:add_varint(tree, f.max_delay, "ACK_FREQUENCY")
  end,
  [14] = function(r, tree)
    r:add_varint(tree, f.crypto_offset, "CRYPTO")
    r:bytes(tree, f.crypto_data, r:left(), "CRYPTO")
  end,
}

local function transport(cx, tree, r)
  local kind = r:add(tree, f.transport, 1, "TRANSPORT")
  local name = TRANSPORT_TYPES[kind]
  if not name then malformed(string.format("TRANSPORT type 0x%02x", kind)) end
  local body = TRANSPORT_BODIES[kind]
  local said = body and body(r, tree) or name
  r:finish(name)
  tree:set_text("Frame: " .. said)
  note(cx, said)
end

-- ---- frames

-- The six bytes of a fragment.
local function fragment(tree, extra)
  tree:add(f.message, extra(0, 4))
  tree:add(f.fragment, extra(4, 1))
  tree:add(f.fragments, extra(5, 1))
  return extra(4, 1):uint(), extra(5, 1):uint()
end

local function channel_text(cx, tree, channel, what)
  tree:set_text(string.format("Frame: channel %d, %s", channel, what))
  note(cx, string.format("channel %d (%s)", channel, what))
end

-- A frame of a channel on a datagram link, behind its header.
local function channel_frame(cx, tree, r, channel, len)
  local kind = kind_of(cx, channel)
  local extra = r:take(6, "frame")
  local body = r:take(len, "frame")
  if channel ~= CONTROL and not kind then
    tree:add(f.extra, extra)
    if body then tree:add(f.data, body) end
    channel_text(cx, tree, channel, len .. " bytes")
  elseif kind == 2 then
    local index, count = fragment(tree, extra)
    if body then tree:add(f.data, body) end
    if count == 0 then tree:add(f.eof, extra(5, 1), true) end
    if index >= math.max(count, 1) or (count == 0 and len > 0) then malformed("fragment") end
    channel_text(cx, tree, channel, count == 0 and "EOF" or len .. " bytes")
  else
    local high, low = extra(0, 2):uint(), extra(2, 4):uint()
    tree:add(f.offset, extra, UInt64.new(low, high))
    if channel == CONTROL then
      tree:set_text("Frame: CONTROL, " .. len .. " bytes")
      if body then
        control(cx, tree, r.tvb, r.at - len, r.at, high * 2 ^ 32 + low)
      end
    else
      if body then tree:add(f.data, body) else tree:add(f.eof, extra, true) end
      channel_text(cx, tree, channel, len == 0 and "EOF" or len .. " bytes")
    end
  end
end

-- The frames of a payload of a datagram link.
local function frames(cx, tree, tvb, at, stop)
  while at < stop do
    if stop - at < 4 or tvb(at, 4):uint() == 0 then
      local item = tree:add(f.padding, tvb(at, stop - at))
      local zeros = tvb:raw(at, stop - at):find("[^%z]") == nil
      if not zeros then item:add_proto_expert_info(e_malformed, "Malformed: padding is not zero") end
      return
    end
    local r = reader(tvb, at, stop)
    local len, channel = tvb(at, 2):uint(), tvb(at + 2, 2):uint()
    local whole = 4 + len + (channel == TRANSPORT and 0 or 6)
    local item = tree:add(f.frame, tvb(at, math.min(whole, stop - at)))
    local ok = guarded(item, function()
      r:add(item, f.length, 2, "frame")
      r:add(item, f.channel, 2, "frame")
      if whole > stop - at then malformed("frame is longer than its packet") end
      r.stop = at + whole
      if channel == TRANSPORT then transport(cx, item, r)
      else channel_frame(cx, item, r, channel, len) end
    end)
    if not ok then
      note(cx, "malformed frame")
      if whole > stop - at then return end
    end
    at = at + whole
  end
end

-- ---- packets

local function id(r, tree, field)
  local len = r:uint(1, "connection id length")
  if len > 20 then malformed("connection id length") end
  return r:bytes(tree, field, len, "connection id"), len
end

-- The header of a long packet up to its payload: type and length of the payload (nil when it has
-- another layout and has been shown whole).
local function long_header(r, tree)
  local flags, range = r:uint(1, "flags")
  local kind, level = math.floor(flags / 16) % 8, flags % 4
  tree:add(f.packet_type, range, kind)
  local version = r:add(tree, f.version, 4, "version")
  local _, dcid_len = id(r, tree, f.dcid)
  local _, scid_len = id(r, tree, f.scid)
  if version == 0 then
    if kind ~= 4 then malformed("version 0") end
    if r:add(tree, f.count, 1, "VersionList") == 0 then malformed("VersionList is empty") end
    while r:left() > 0 do r:add(tree, f.known_version, 4, "version") end
    return kind, nil
  end
  if version ~= VERSION then malformed("another version") end
  if not PACKET_TYPES[kind] or kind == 4 then malformed("packet type") end
  if math.floor(flags / 4) % 4 ~= 0 then malformed("reserved bits are set") end
  if dcid_len ~= 8 or scid_len ~= 8 then malformed("connection id length") end
  if kind == 0 or kind == 1 then
    local len = r:uint(2, "token length")
    if len > 128 then malformed("token length") end
    r:bytes(tree, f.token, len, "token")
  end
  if kind == 1 then
    r:bytes(tree, f.retry_tag, 16, "integrity tag")
    r:finish("Retry")
    return kind, nil
  end
  if level > 1 then malformed("level") end
  tree:add(f.level, range, level)
  r:add(tree, f.number_low, 4, "packet number")
  local len = r:add(tree, f.packet_length, 2, "length")
  if len <= TAG then malformed("length of the payload") end
  return kind, len
end

local function short_header(r, tree)
  local flags, range = r:uint(1, "flags")
  tree:add(f.packet_type, range, DATA_PACKET)
  if flags ~= 0x40 and flags ~= 0x41 then malformed("reserved bits are set") end
  tree:add(f.key_phase, range, flags % 2)
  r:bytes(tree, f.dcid, 8, "connection id")
  r:add(tree, f.number_low, 4, "packet number")
end

-- One packet as it is on the wire; gives where the next one begins.
local function wire_packet(cx, tree, tvb, at)
  local stop = tvb:len()
  local r = reader(tvb, at, stop)
  local item = tree:add(trunkline, tvb(at, stop - at), "Trunkline packet")
  local ok = guarded(item, function()
    local kind, len = DATA_PACKET, nil
    if tvb(at, 1):uint() >= 0x80 then
      kind, len = long_header(r, item)
    else
      short_header(r, item)
      len = r:left()
      if len <= TAG then malformed("short packet is cut off") end
    end
    note(cx, PACKET_TYPES[kind])
    item:append_text(": " .. PACKET_TYPES[kind])
    if len then
      local payload = r:take(len, "payload")
      item:add(f.sealed, payload)
      item:add(f.note, SEALED):set_generated()
    end
    item:set_len(r.at - at)
  end)
  if not ok then
    note(cx, "malformed")
    return stop
  end
  return r.at
end

local function finish(cx, name)
  cx.pinfo.cols.protocol = name
  cx.pinfo.cols.info = table.concat(cx.info, ", ")
end

function trunkline.dissector(tvb, pinfo, tree)
  if tvb:len() == 0 or tvb(0, 1):uint() < 0x40 then return 0 end
  local cx = { pinfo = pinfo, info = {}, tvb = tvb }
  local at = 0
  while at < tvb:len() do
    if at > 0 and tvb(at, 1):uint() < 0x40 then
      tree:add(f.padding, tvb(at))
      break
    end
    at = wire_packet(cx, tree, tvb, at)
  end
  finish(cx, "Trunkline")
  return tvb:len()
end

-- A long packet of this version tells the protocol; the rest of the conversation follows it.
local function is_long(tvb)
  if tvb:len() < 24 or tvb(0, 1):uint() < 0x80 then return false end
  local flags, version = tvb(0, 1):uint(), tvb(1, 4):uint()
  if tvb(5, 1):uint() > 20 then return false end
  return version == VERSION or (version == 0 and flags == 0xc0 and tvb:len() % 4 == 3)
end

trunkline:register_heuristic("udp", function(tvb, pinfo, tree)
  if not is_long(tvb) then return false end
  pinfo.conversation = trunkline
  trunkline.dissector(tvb, pinfo, tree)
  return true
end)
DissectorTable.get("udp.port"):add_for_decode_as(trunkline)

-- ---- packets in the clear

function clear.dissector(tvb, pinfo, tree)
  local cx = { pinfo = pinfo, info = {}, tvb = tvb, key = "?" }
  local item = tree:add(trunkline, tvb(), "Trunkline packet, in the clear")
  guarded(item, function()
    local r = reader(tvb, 0, tvb:len())
    if r:uint(1, "version of the capture") ~= 1 then malformed("version of the capture") end
    cx.sent = r:add(item, f.sent, 1, "direction") == 1
    local shard = r:add(item, f.shard, 1, "shard")
    r:take(1, "header")
    local connection = r:take(8, "connection")
    item:add(f.connection, connection)
    cx.key = shard .. ":" .. tostring(connection:bytes())
    item:add(f.number, r:take(8, "packet number"))
    local len = r:uint(2, "header length")
    local header = reader(tvb, r.at, r.at + len)
    r:take(len, "header")
    if len == 0 then malformed("header is empty") end
    local kind = DATA_PACKET
    if tvb(header.at, 1):uint() >= 0x80 then kind = long_header(header, item)
    else short_header(header, item) end
    note(cx, PACKET_TYPES[kind])
    item:append_text(": " .. PACKET_TYPES[kind])
    frames(cx, item, tvb, r.at, tvb:len())
  end)
  finish(cx, "Trunkline")
  return tvb:len()
end

-- ---- stream link

local function stream_frame(cx, tree, tvb, at, len)
  local channel = tvb(at + 2, 2):uint()
  local item = tree:add(f.frame, tvb(at, 4 + len))
  item:add(f.length, tvb(at, 2))
  item:add(f.channel, tvb(at + 2, 2))
  local ok = guarded(item, function()
    local r = reader(tvb, at + 4, at + 4 + len)
    if channel == TRANSPORT then malformed("channel 65535") end
    if channel == CONTROL then
      item:set_text("Frame: CONTROL, " .. len .. " bytes")
      control(cx, item, tvb, r.at, r.stop)
      return
    end
    if len == 0 then item:add(f.eof, tvb(at, 2), true)
    elseif kind_of(cx, channel) == 2 then
      local index, count = fragment(item, r:take(6, "fragment"))
      r:bytes(item, f.data, r:left(), "fragment")
      if count == 0 or index >= count then malformed("fragment") end
    else
      r:bytes(item, f.data, len, "frame")
    end
    channel_text(cx, item, channel, len == 0 and "EOF" or len .. " bytes")
  end)
  if not ok then note(cx, "malformed frame") end
end

function stream.dissector(tvb, pinfo, tree)
  local ends = { tostring(pinfo.src) .. ":" .. pinfo.src_port,
    tostring(pinfo.dst) .. ":" .. pinfo.dst_port }
  table.sort(ends)
  local cx = { pinfo = pinfo, info = {}, tvb = tvb, key = table.concat(ends, "-") }
  local item = tree:add(trunkline, tvb(), "Trunkline stream link")
  local at = 0
  while at < tvb:len() do
    local missing = 4 - (tvb:len() - at)
    if missing <= 0 then missing = 4 + tvb(at, 2):uint() - (tvb:len() - at) end
    if missing > 0 then
      -- The rest comes with later records.
      pinfo.desegment_offset = at
      pinfo.desegment_len = tvb:len() - at < 4 and DESEGMENT_ONE_MORE_SEGMENT or missing
      break
    end
    local len = tvb(at, 2):uint()
    stream_frame(cx, item, tvb, at, len)
    at = at + 4 + len
  end
  if #cx.info > 0 then finish(cx, "Trunkline") end
  return tvb:len()
end

-- Peers that name no protocol: the first frame is one of CONTROL that holds an array.
stream:register_heuristic("tls", function(tvb, pinfo, tree)
  if tvb:len() < 5 or tvb(2, 2):uint() ~= CONTROL then return false end
  local len, first = tvb(0, 2):uint(), tvb(4, 1):uint()
  if len < 2 or len > 16384 or first < 0x91 or first > 0x94 then return false end
  stream.dissector(tvb, pinfo, tree)
  return true
end)
DissectorTable.get("tls.alpn"):add("trunkline/1", stream)
DissectorTable.get("tls.alpn"):add("mux/0", stream)
DissectorTable.get("tls.port"):add_for_decode_as(stream)
