-- Turns Markdown fragments into HTML or Typst. Run by report/pandoc.py: JSON in, JSON out.

local FORMAT = 'gfm+tex_math_dollars+footnotes'
  .. '-raw_html-emoji-task_lists-yaml_metadata_block'
local job = pandoc.json.decode(io.read('a'), false)
local html = job.target == 'html'

local taken = {}     -- id -> true, for every possible target of a link
local titles = {}    -- heading id -> its text
local locals = {}    -- chapter -> slug used in that chapter -> id
local chapters = {}  -- chapter -> id of its first heading
local headings, dead = pandoc.List {}, pandoc.List {}
for id in pairs(job.labels) do taken[id] = true end

local function unused(id)
  local free, n = id, 1
  while taken[free] do
    n = n + 1
    free = id .. '-' .. n
  end
  taken[free] = true
  return free
end

local function slug(text)
  local plain = text:lower():gsub('[^a-z0-9]+', '-'):gsub('^%-+', ''):gsub('%-+$', '')
  return plain == '' and 'section' or plain
end

-- Headings: no level is skipped, ids are unique, chapters and sections are numbered.

local last, counts = {}, { 0, 0 }

local function heading(el, fragment)
  local chapter = fragment.chapter
  local text = pandoc.utils.stringify(el.content)
  el.level = math.min(el.level, (last[chapter] or 0) + 1)
  last[chapter] = el.level
  local number = ''
  if fragment.numbered and el.level == 1 then
    counts = { counts[1] + 1, 0 }
    number = tostring(counts[1])
  elseif fragment.numbered and el.level == 2 then
    counts[2] = counts[2] + 1
    number = counts[1] .. '.' .. counts[2]
  end
  local first = not chapters[chapter]
  local id = unused(first and slug(text) or chapters[chapter] .. '-' .. slug(text))
  if first then chapters[chapter] = id end
  locals[chapter] = locals[chapter] or {}
  for _, name in ipairs { el.identifier:lower(), slug(text) } do
    locals[chapter][name] = locals[chapter][name] or id
  end
  titles[id] = { pandoc.Str(text) }
  headings:insert { level = el.level, id = id, number = number, text = text }
  el.identifier = id
  if html then
    el.level = math.min(el.level + 1, 6)
    if number ~= '' then
      el.content:insert(1, pandoc.Space())
      el.content:insert(1, pandoc.Span(number, { class = 'number' }))
    end
  end
  return el
end

-- Links within the report, to another of its notebooks or to the web; others become plain text.

local function destination(target, chapter)
  if target:match('^https?://') or target:match('^mailto:') then return target end
  local name = target:match('^#(.+)$')
  if name then
    local own = locals[chapter] and locals[chapter][name:lower()]
    local id = own or (taken[name] and name)
    if id then return '#' .. id end
    dead:insert { target = target, chapter = chapter }
    return nil
  end
  local stem = target:match('([^/]+)%.ipynb')
  return stem and chapters[stem] and '#' .. chapters[stem]
end

-- What a notebook calls [the figure below](#id) has a number in the report.

local function is_reference(el)
  local words = pandoc.utils.stringify(el.content):lower()
  local place = words:match('%f[%a]figure (%a+)$') or words:match('%f[%a]table (%a+)$')
  return place == 'below' or place == 'above'
end

-- A reference in brackets is left out with them where the report has no such figure or table.
local function without_absent(inlines)
  local kept = pandoc.Inlines {}
  local i = 1
  while i <= #inlines do
    local el, after = inlines[i], inlines[i + 1]
    local before = kept[#kept]
    local id = el.t == 'Link' and is_reference(el) and el.target:match('^#(.+)$')
    if id and not job.labels[id] and before and after and before.t == 'Str' and after.t == 'Str'
      and before.text:match('%($') and after.text:match('^%)') then
      before.text = before.text:sub(1, -2)
      if before.text == '' then
        kept:remove()
        local space = kept[#kept]
        if space and (space.t == 'Space' or space.t == 'SoftBreak') then kept:remove() end
      end
      kept:insert(pandoc.Str(after.text:sub(2)))
      i = i + 2
    else
      kept:insert(el)
      i = i + 1
    end
  end
  return kept
end

local function link(el, chapter)
  local found = destination(el.target, chapter)
  local id = found and found:match('^#(.+)$')
  if id and job.labels[id] and is_reference(el) then el.content = pandoc.Inlines {} end
  if #el.content == 0 then
    el.content = id and (titles[id] or { pandoc.Str(job.labels[id] or id) })
      or { pandoc.Str(el.target) }
  end
  return found and pandoc.Link(el.content, found) or el.content
end

-- Mathematics: with an alternative text in Typst; formulae that pandoc cannot parse become code.

-- pandoc 3.9 writes symbol names that Typst 0.15 no longer defines.
local function renamed(names)
  return (names:gsub('%.circle', '.o'):gsub('%.([lr])%.double', '.%1.stroked')
    :gsub('%f[%a]sect%f[%A]', 'inter'))
end

local function mathematics(el)
  local source = pandoc.write(pandoc.Pandoc { pandoc.Plain { el } }, 'typst'):gsub('%s+$', '')
  if not source:match('^%$.*%$$') then return pandoc.Code(el.text) end
  if html then return el end
  source = source:gsub('([^"]*)("?[^"]*"?)', function(names, quoted)
    return renamed(names) .. quoted
  end)
  local alt = el.text:gsub('[\\"]', '\\%0'):gsub('%s+', ' ')
  return pandoc.RawInline('typst', string.format(
    '#math.equation(block: %s, alt: "%s", %s);', el.mathtype == 'DisplayMath', alt, source))
end

local function literal(el)
  return el.text:match('^%s*<!%-%-') and {} or pandoc.Str(el.text)
end

local tables = 0

local function scrollable(el)
  tables = tables + 1
  local label = 'Table in the text, ' .. tables
  if not html then return nil end
  return pandoc.Div(
    { el }, { class = 'scroll', role = 'region', tabindex = '0', ['aria-label'] = label })
end

local docs = pandoc.List(job.prose):map(function(fragment)
  local doc = pandoc.read(fragment.markdown, FORMAT)
  return doc:walk {
    Header = function(el) return heading(el, fragment) end,
    Inlines = without_absent,
  }
end)

local blocks = pandoc.List {}
for i, doc in ipairs(docs) do
  local chapter = job.prose[i].chapter
  blocks:extend(doc:walk {
    Link = function(el) return link(el, chapter) end,
    Image = function(el) return el.caption end,
    RawInline = literal,
    RawBlock = function(el) return pandoc.Para(literal(el)) end,
    Table = scrollable,
    Math = mathematics,
  }.blocks)
  blocks:insert(pandoc.RawBlock(job.target, job.split))
end

io.write(pandoc.json.encode {
  text = pandoc.write(pandoc.Pandoc(blocks), job.target,
    { html_math_method = 'mathml', highlight_method = 'none', wrap_text = 'none' }),
  headings = headings,
  dead = dead,
})
